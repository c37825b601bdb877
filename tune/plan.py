"""A sweep made ready to run: names settled, paths absolute, data looked at, its folder made."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from infosam.data.card import read_card
from infosam.errors import ConfigError, UserError
from tune.config import SweepConfig
from tune.footprint import check_constraints
from tune.home import Home
from tune.warm_start import warm_started

TRAINING = "infosam.training"
"""The training module of every real sweep; see `tune.worker.TrainingEntry`."""
MARK_BYTES = 4
SETTINGS_FILE = "sweep.yaml"
"""The whole configuration in a sweep's folder, written before anything else."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What does not change while a sweep runs. `config` has name and domain filled in."""

    config: SweepConfig
    sweep_id: str
    domain: str
    data_digest: str
    folder: Path
    home: Home
    training: str
    group: str | None = None  # of the sweeps it shares slots with
    notes: Sequence[str] = ()  # what was settled for the user, and is to be said
    mirror_mark: str = ""  # tells sweeps of one name apart where they have a mirror

    @property
    def tracking_uri(self) -> str:
        """Where MLflow records the sweep."""
        return self.config.tracking.uri or self.home.tracking_uri

    @property
    def device(self) -> str:
        """Where training happens; without a reserved GPU that is the processor, whatever the machine has."""
        run, resources = self.config.run, self.config.resources
        return "cpu" if run.train.device == "auto" and not resources.gpus_per_worker else run.train.device

    @property
    def stores(self) -> Path | None:
        """Folder of what the trials of a machine share; each machine has its part of it. None: they share nothing."""
        stores = self.config.resources.stores
        return (stores.folder or self.home.encodings).absolute() if stores.build else None

    @property
    def stores_limit_bytes(self) -> int:
        """Most that they take on a machine."""
        return int(self.config.resources.stores.limit_gib * 2**30)

    @property
    def mirror(self) -> str | None:
        """Address below which each trial keeps its checkpoints as well.

        Names are unique in a results folder only, but others may use the bucket: the mark keeps them apart."""
        mirror = self.config.resources.mirror
        return f"{mirror}/{self.sweep_id}-{self.mirror_mark}" if mirror else None

    @property
    def settings(self) -> str:
        """The whole configuration as YAML; running it again repeats the sweep."""
        return yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)

    @property
    def protocol(self) -> str:
        """How scores come about, in one line."""
        if self.training != TRAINING:
            return self.training
        from infosam.evaluation import PROTOCOL

        return f"{PROTOCOL}; best epoch and best trial by val Dice with prompt {self.config.run.train.select}"

    def fixed_params(self) -> dict[str, Any]:
        """Settings that are equal in all trials, by dotted path."""
        settings = flat(self.config.run.model_dump(mode="json"))
        return {path: value for path, value in settings.items() if path not in self.config.space}


def make_plan(config: SweepConfig, home: Home, training: str = TRAINING) -> SweepPlan:
    """Looks at the dataset's card and makes the sweep's folder. Raises UserError."""
    return settled(draft_plan(config, home, training))


def settled(draft: SweepPlan) -> SweepPlan:
    """A drafted sweep with its folder, and the name that this got. Raises UserError."""
    sweep_id, folder = make_folder(draft.sweep_id, draft.folder.parent)
    named = draft.config.model_copy(update={"name": sweep_id})
    plan = replace(draft, config=named, sweep_id=sweep_id, folder=folder)
    try:
        write_whole(folder / SETTINGS_FILE, plan.settings)
    except UserError:
        discard(folder)
        raise
    return plan


def draft_plan(config: SweepConfig, home: Home, training: str = TRAINING) -> SweepPlan:
    """As `make_plan` with nothing on disk yet; a name that is taken gets its number there."""
    card = read_card(config.data)  # the images are checked where they are loaded, while Ray starts
    if config.domain not in (None, card.domain):
        raise ConfigError(
            f"domain: the configuration says {config.domain!r}, {config.data} holds {card.domain!r}; "
            "leave domain out, or import the images under the other name"
        )
    missing = [split for split in ("train", "val", "test") if not card.counts.get(split)]
    if missing:
        raise UserError(
            f"{config.data}: no images in {', '.join(missing)}; a sweep trains on train, chooses on val "
            "and scores once on test, so each needs some"
        )
    earlier = [home.sweeps] if config.storage is None else [home.sweeps, config.storage]
    config, notes = warm_started(config, card.domain, earlier)
    check_constraints(config)
    sweep_id = config.name or card.domain
    return SweepPlan(
        config=_pinned(config, card.domain, sweep_id),
        sweep_id=sweep_id,
        domain=card.domain,
        data_digest=card.digest,
        folder=(config.storage or home.sweeps) / sweep_id,
        home=home,
        training=training,
        notes=tuple(notes),
        mirror_mark=new_mark(config),
    )


def new_mark(config: SweepConfig) -> str:
    """Of a sweep that begins to keep its checkpoints in a bucket as well; empty for others."""
    return secrets.token_hex(MARK_BYTES) if config.resources.mirror else ""


def write_whole(path: Path, text: str, *, cure: str = "set storage or INFOSAM_HOME") -> None:
    """Writes a file so that a reader never sees half of it. Raises UserError, which ends with `cure`."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}; {cure}") from error


def discard(folder: Path) -> None:
    """Removes the folder of what was refused before its first trial."""
    shutil.rmtree(folder, ignore_errors=True)


def _pinned(config: SweepConfig, domain: str, sweep_id: str) -> SweepConfig:
    """The configuration with nothing left to the surroundings."""
    model = config.run.model
    if model.checkpoint is not None:
        model = model.model_copy(update={"checkpoint": model.checkpoint.absolute()})
    run = config.run.model_copy(update={"model": model})
    return config.model_copy(update={"domain": domain, "name": sweep_id, "data": config.data.absolute(), "run": run})


def make_folder(name: str, parent: Path) -> tuple[str, Path]:
    """A new folder for a sweep of that name; a taken name gets the next number, so that sweeps never mix."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            sweep_id = free_name(name, parent)
            try:
                (parent / sweep_id).mkdir()
            except FileExistsError:  # another sweep took it meanwhile
                continue
            return sweep_id, (parent / sweep_id).absolute()
    except OSError as error:
        raise UserError(f"{parent}: cannot hold the sweep's folder: {error}; set storage or INFOSAM_HOME") from error


def free_name(name: str, parent: Path) -> str:
    """The name that a sweep would get beside the folders that are there."""
    pattern = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    matches = (pattern.fullmatch(path.name) for path in parent.iterdir()) if parent.is_dir() else ()
    numbers = [int(match[1] or 1) for match in matches if match]
    return f"{name}-{max(numbers) + 1}" if numbers else name


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
