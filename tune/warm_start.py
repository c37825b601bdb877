"""Configurations to try first, taken from earlier sweeps of other domains: what adapted SAM well to one kind of image
is a better guess for the next one than a random draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from infosam.errors import ConfigError, UserError
from tune.config import SweepConfig
from tune.event_log import NAME, read_events
from tune.events import SweepStarted
from tune.footprint import Footprint, broken
from tune.ledger import Ledger, TrialRecord
from tune.space import Choice, Distribution, IntUniform, Point, in_order, is_active, point_problems

PAPER: Point = {
    "peft.kind": "lora",
    "peft.rank": 4,
    "info.compression": 1.0,
    "info.distillation": 0.5,
    "optim.lr": 2e-4,
    "optim.weight_decay": 0.0,
}
"""InfoSAM (ICML 2025) as its released code runs it."""
MODEL_BOUND = "optim.lr"
"""What the paper chose for its model only: a point with another value here still stands for the paper's."""

SOURCES = 5
"""Earlier sweeps that `auto` looks at: the newest of as many other domains."""
BEST_OF_EACH = 2
SHARE = 4
"""At most one in so many trials comes from earlier sweeps, so that the search stays one."""


@dataclass(frozen=True)
class _Source:
    """An earlier sweep."""

    name: str
    started: SweepStarted
    log: Path


def warm_started(config: SweepConfig, domain: str, folders: Sequence[Path]) -> tuple[SweepConfig, list[str]]:
    """The sweep with what earlier ones found among its points, after those it has, and what is to be said about it.

    Args:
        domain: of the new sweep; `auto` takes from other domains only.
        folders: of earlier sweeps.

    The result has `warm_start: off`, so that its file repeats it. Raises ConfigError for a name that is not there."""
    settled = config.model_copy(update={"warm_start": "off"})
    room = min(config.search.trials - len(config.search.points), max(1, config.search.trials // SHARE))
    if config.warm_start == "off" or room < 1:
        return settled, []
    points, taken = list(config.search.points), 0
    notes: list[str] = []
    for source, trial in _best(_sources(config, domain, folders, notes), notes):
        point, changes = _fitted(_settings(source, trial), config)
        label = f"{source.name} ({source.started.domain}, val Dice {trial.score:.3f})"
        if why := _refusal(point, config):
            notes.append(f"Warm start leaves out {label}: {why}")
        elif taken < room and point and point not in points:
            points.append(point)
            taken += 1
            notes.append(f"Warm start from {label}" + (f", changed to fit: {', '.join(changes)}" if changes else ""))
    if taken:
        _add_paper(points, len(config.search.points), config, notes)
    search = settled.search.model_copy(update={"points": points})
    return settled.model_copy(update={"search": search}), notes


def _sources(config: SweepConfig, domain: str, folders: Sequence[Path], notes: list[str]) -> list[_Source]:
    found = {source.name: source for folder in folders for source in _sweeps_in(folder, notes)}
    if config.warm_start != "auto":
        missing = [name for name in config.warm_start if name not in found]
        if missing:
            known = ", ".join(sorted(found)) or "none"
            raise ConfigError(f"warm_start: no sweep {', '.join(missing)} to take from; there are {known}")
        return [found[name] for name in config.warm_start]
    newest: dict[str, _Source] = {}
    for source in sorted(found.values(), key=lambda one: one.started.at, reverse=True):
        if source.started.domain != domain:
            newest.setdefault(source.started.domain, source)
    return list(newest.values())[:SOURCES]


def _sweeps_in(folder: Path, notes: list[str]) -> Iterator[_Source]:
    for log in sorted(folder.glob(f"*/{NAME}")):
        try:
            first = next((event for event, _ in read_events(log)), None)
        except (UserError, OSError) as error:
            notes.append(f"Warm start passes over {log.parent.name}: {error}")
            continue
        if isinstance(first, SweepStarted):
            yield _Source(log.parent.name, first, log)


def _best(sources: Sequence[_Source], notes: list[str]) -> Iterator[tuple[_Source, TrialRecord]]:
    """The best trial of each sweep, then the second of each."""
    ranked = []
    for source in sources:
        try:
            ranked.append([(source, trial) for trial in Ledger.replay(source.log).contenders()[:BEST_OF_EACH]])
        except (UserError, OSError) as error:
            notes.append(f"Warm start passes over {source.name}: {error}")
    for rank in zip_longest(*ranked):
        yield from (pair for pair in rank if pair is not None)


def _settings(source: _Source, trial: TrialRecord) -> Mapping[str, Any]:
    """All settings of a trial below `run`, searched or not, by dotted path."""
    return {**source.started.params, **trial.values}


def _fitted(settings: Mapping[str, Any], config: SweepConfig) -> tuple[dict[str, Any], list[str]]:
    """As much of `settings` as this space holds, numbers moved to the nearest bound, and what was moved or left out."""
    point: dict[str, Any] = {}
    changes: list[str] = []
    for path in in_order(config.space):
        distribution = config.space[path]
        if path not in settings or not is_active(distribution, point):
            continue
        value = settings[path] if distribution.contains(settings[path]) else _nearest(distribution, settings[path])
        if value is None:
            changes.append(f"{path} {settings[path]} left open")
            continue
        if value != settings[path]:
            changes.append(f"{path} {settings[path]:.4g} -> {value:.4g}")
        point[path] = value
    return point, changes


def _nearest(distribution: Distribution, value: Any) -> Any:
    """The value of a range that is nearest to a number; None where there is no nearest."""
    if isinstance(distribution, Choice) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    corners = distribution.corners()
    low, high = min(corners), max(corners)
    clipped = min(max(value, low), high)
    if isinstance(distribution, IntUniform):
        return int(low + round((clipped - low) / distribution.step) * distribution.step)
    if distribution.contains(clipped):
        return float(clipped)
    return min((one for one in corners), key=lambda one: abs(one - clipped))  # between 0 and the low bound


def _refusal(point: Point, config: SweepConfig) -> str | None:
    problems = point_problems(point, config.space, config.run)
    if problems:
        return "; ".join(problems)
    return broken(Footprint(config.run, config.constraints), point, config.space)


def _add_paper(points: list[dict[str, Any]], place: int, config: SweepConfig, notes: list[str]) -> None:
    """Puts the paper's defaults before what earlier sweeps found, unless a point stands for them already."""
    paper, _ = _fitted(PAPER, config)
    known = {path: value for path, value in paper.items() if path != MODEL_BOUND}
    if not known or any(known.items() <= point.items() for point in points) or _refusal(paper, config):
        return
    if len(points) < config.search.trials:
        points.insert(place, paper)
        notes.append("Warm start also tries the paper's defaults")
