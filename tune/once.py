"""A sweep that runs once, however often it is asked for: what a retried job needs, which only knows its command."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infosam.errors import ConfigError
from tune.config import SweepConfig, load_sweep_config
from tune.group import find_group
from tune.home import Home
from tune.plan import SETTINGS_FILE
from tune.resume import CHANGEABLE

DECIDED_LATER = {"name", "domain", "data", "warm_start", CHANGEABLE}
"""Keys that a sweep fills in when it begins, whose sense is checked when it goes on, or which may change."""


def begun(name: str, configs: Sequence[SweepConfig], home: Home) -> Path | None:
    """The folder of the sweep or group called `name` if it began earlier with these settings, else None.

    What a driver left that died before it wrote anything is removed, so that the name is free. Raises ConfigError if
    the sweep of that name is another one."""
    folder = (configs[0].storage or home.sweeps) / name
    if not folder.is_dir() or _is_remains(folder):
        return None
    found, members = find_group(str(folder.absolute()), home)
    given = _comparable(configs[0])
    for member in members:
        written = _comparable(load_sweep_config(member / SETTINGS_FILE))
        changed = [key for key in given if given[key] != written[key]]
        if changed:
            raise ConfigError(
                f"--once {name}: {member} began with other settings ({', '.join(changed)}); give the new sweep another "
                "name, or the old settings to go on with it"
            )
    return found


def _is_remains(folder: Path) -> bool:
    """Whether a folder holds nothing that a sweep could go on from; it is gone then."""
    (folder / f"{SETTINGS_FILE}.part").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
        return True
    return False


def _comparable(config: SweepConfig) -> dict[str, Any]:
    settings = config.model_dump(mode="json", exclude=DECIDED_LATER)
    settings["search"].pop("points")  # those of a warm start are added to them
    settings["run"]["model"].pop("checkpoint")  # made absolute; the digest is compared when the sweep goes on
    return settings
