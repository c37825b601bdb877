"""Going on with a sweep whose driver is gone: what its folder and its log say, and whether both still fit.

The log is the truth. A trial without an end, or with one that the user caused, goes on from its checkpoint; all others
are never run again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from infosam.data.card import read_card
from infosam.errors import ConfigError, UserError
from tune.config import SweepConfig, load_sweep_config, parse_sweep_config
from tune.event_log import NAME
from tune.fetched import fetch_all
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import SETTINGS_FILE, TRAINING, SweepPlan, new_mark

CHANGEABLE = "resources"
"""The section that may differ when a sweep goes on, perhaps on another cluster; the others decide what it finds."""
BASE_DIGEST = "base_sha256"
"""Tag of a sweep that names its base weights."""
GROUP = "group"
"""Tag of a sweep that shares its slots: the name of the group."""
MIRROR_MARK = "mirror_mark"
"""Tag of a sweep that keeps checkpoints in a bucket: what its folder's name ends in there."""


def find_sweep(name: str, home: Home) -> Path:
    """The folder of a sweep by its name, or by its path where `storage` put it. Raises UserError."""
    for folder in (home.sweeps / name, Path(name)):
        if (folder / SETTINGS_FILE).is_file():
            return folder.absolute()
    known = sorted(path.parent.name for path in home.sweeps.glob(f"*/{SETTINGS_FILE}"))
    raise UserError(
        f"{name}: no such sweep in {home.sweeps} (INFOSAM_HOME); "
        + (f"there are {', '.join(known)}" if known else "there is none")
        + "; a sweep in another folder (storage) is named by its path"
    )


def reopen(
    folder: Path, ledger: Ledger, home: Home, *, training: str = TRAINING, overrides: Sequence[str] = ()
) -> SweepPlan:
    """The plan of an earlier sweep, as it was when it began.

    Args:
        folder: see `find_sweep`.
        ledger: replayed from the log in it, which may be empty.
        overrides: changed settings, `resources.slots=2`; only of `resources`.

    Raises UserError if its settings were edited since, or its data is not the same."""
    config = _settings(folder, ledger, overrides)
    assert config.name is not None
    assert config.domain is not None
    fetch_all(config.resources.fetch)
    card = read_card(config.data)
    if ledger.sweep is not None and card.digest != ledger.sweep.tags["data_digest"]:
        raise UserError(
            f"{config.data}: not the images that sweep {config.name} began with (digest {card.digest[:12]}, then "
            f"{ledger.sweep.tags['data_digest'][:12]}), so its scores could not be compared; put them back, or start "
            "another sweep"
        )
    tags = ledger.sweep.tags if ledger.sweep else {}
    return SweepPlan(
        config=config,
        sweep_id=config.name,
        domain=config.domain,
        data_digest=card.digest,
        folder=folder,
        home=home,
        training=training,
        group=tags.get(GROUP),
        mirror_mark=tags.get(MIRROR_MARK) or new_mark(config),
    )


def check_weights(ledger: Ledger, base_sha256: str) -> None:
    """Raises UserError if a sweep began with other base weights."""
    before = ledger.sweep.tags.get(BASE_DIGEST) if ledger.sweep else None
    if before not in (None, base_sha256):
        raise UserError(
            f"run.model: not the weights the sweep began with (sha256 {base_sha256[:12]}, then {before[:12]}), so its "
            "scores could not be compared; put them back, or start another sweep"
        )


def drop_stale_bundles(folder: Path, ledger: Ledger) -> None:
    """Removes bundles of trials that were cut off and go on: their best epoch may yet come."""
    for trial in ledger.trials.values():
        if trial.is_open:
            shutil.rmtree(folder / "trials" / trial.trial_id / "bundle", ignore_errors=True)


def is_over(ledger: Ledger, config: SweepConfig) -> bool:
    """Whether nothing is left to do: neither trials, nor the test score, nor the decision on the champion."""
    if ledger.end is None or any(trial.is_open for trial in ledger.trials.values()):
        return False
    if not ledger.contenders():
        # What failed before its trials had their turn, as a driver may that was ended early, has them still to do.
        return ledger.end.state == "FAILED" and (ledger.budget is not None or not trials_left(ledger, config))
    has_adapter = any(trial.best and trial.best.checkpoint for trial in ledger.contenders())
    return ledger.end.state == "FINISHED" and (ledger.promotion is not None or not has_adapter)


def trials_left(ledger: Ledger, config: SweepConfig) -> int:
    """Trials of the search that have not come to their end."""
    return max(0, config.search.trials - sum(not trial.is_open for trial in ledger.ranking()))


def _settings(folder: Path, ledger: Ledger, overrides: Sequence[str]) -> SweepConfig:
    path = folder / SETTINGS_FILE
    written = load_sweep_config(path)
    if ledger.sweep is None:  # its driver died before the first trial
        return _with(written, overrides, str(path))
    began = parse_sweep_config(yaml.safe_load(ledger.sweep.settings), [], source=str(folder / NAME))
    changed = [
        name
        for name in SweepConfig.model_fields
        if name != CHANGEABLE and getattr(written, name) != getattr(began, name)
    ]
    if changed:
        raise ConfigError(
            f"{path}: {', '.join(changed)} changed since the sweep began, which would mix two sweeps; put it back, or "
            f"start another sweep with this file (infosam sweep {path})"
        )
    return _with(written, overrides, str(path))


def _with(config: SweepConfig, overrides: Sequence[str], source: str) -> SweepConfig:
    for override in overrides:
        if not override.startswith(f"{CHANGEABLE}."):
            raise ConfigError(
                f"{override}: a sweep that goes on keeps its settings, only {CHANGEABLE}.* may change; start another "
                "sweep for the rest"
            )
    return parse_sweep_config(config.model_dump(mode="json"), overrides, source=source)
