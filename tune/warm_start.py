"""Configurations to try first, taken from earlier sweeps of other domains: what adapted SAM well to one kind of image
is a better guess for the next one than a random draw."""

from __future__ import annotations

import json
import statistics
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from infosam.errors import ConfigError, UserError
from tune.config import SweepConfig
from tune.event_log import NAME, read_events
from tune.events import SweepStarted
from tune.footprint import Footprint, broken
from tune.ledger import Ledger, TrialRecord
from tune.space import Choice, Distribution, IntUniform, Point, in_order, is_active, point_problems

Key = TypeVar("Key", bound=Hashable)

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
SHARE = 4
"""At most one in so many trials comes from earlier sweeps, so that the search stays one."""
WORST = 3.0
"""Beyond this a regret counts as this: how bad the bad ones are says nothing about the good ones."""
UNTRIED = 1.0
"""What a configuration counts with where it was not tried: as the median one."""


@dataclass(frozen=True)
class _Source:
    """An earlier sweep."""

    name: str
    started: SweepStarted
    log: Path


@dataclass(frozen=True)
class _Found:
    """What an earlier sweep tried, as a point of the new one's space."""

    point: dict[str, Any]
    changes: Sequence[str]  # what had to be changed to fit
    label: str
    score: float


def regrets(scores: Mapping[Key, float]) -> dict[Key, float]:
    """How far each is behind the best of its domain: 0 the best, 1 the median, at most `WORST`.

    So a domain where scores differ by half and one where they differ by a hundredth have the same say."""
    best = max(scores.values(), default=0.0)
    width = best - statistics.median(scores.values()) if scores else 0.0

    def regret(score: float) -> float:
        if score == best:
            return 0.0
        return min(WORST, (best - score) / width) if width > 0 else WORST

    return {key: regret(score) for key, score in scores.items()}


def ranked(sources: Sequence[Mapping[Key, float]]) -> list[Key]:
    """Configurations in the order in which a new domain should try them: by their mean regret over earlier domains.

    Args:
        sources: scores of what was tried, for each earlier domain; the same configuration has the same key everywhere.

    Of equal ones the first comes first. `benchmarks/search_quality.py` replays searches by this rule."""
    known = [regrets(scores) for scores in sources if scores]
    keys = dict.fromkeys(key for one in known for key in one)
    return sorted(keys, key=lambda key: statistics.fmean(one.get(key, UNTRIED) for one in known))


def places(trials: int, own: int, *, paper: bool) -> int:
    """How many points may come from earlier sweeps, beside `own` ones and, where `paper`, the paper's."""
    return max(0, min(trials - own - paper, max(1, trials // SHARE)))


def first_tried(trials: int, own: Sequence[Point], found: Sequence[Point], paper: Point | None) -> list[dict[str, Any]]:
    """All points in their order: one's own; what was found, one sampled (an empty point) before each of them as long as
    there are trials for it, because what was best elsewhere may be far from what is best here; the paper's.

    `found` are at most `places` points. `benchmarks/search_quality.py` replays searches with these points."""
    gaps = trials - len(own) - len(found) - (paper is not None)
    points = [dict(one) for one in own]
    for number, one in enumerate(found):
        if number < gaps:
            points.append({})
        points.append(dict(one))
    return points if paper is None else [*points, dict(paper)]


def warm_started(config: SweepConfig, domain: str, folders: Sequence[Path]) -> tuple[SweepConfig, list[str]]:
    """The sweep with more points to try first, and what is to be said about it: after its own come those that earlier
    sweeps found, then the paper's defaults, for which a place is kept also where there is no earlier sweep.

    Args:
        domain: of the new sweep; `auto` takes from other domains only.
        folders: of earlier sweeps.

    The result has `warm_start: off`, so that its file repeats it. Raises ConfigError for a name that is not there."""
    settled = config.model_copy(update={"warm_start": "off"})
    if config.warm_start == "off":
        return settled, []
    notes: list[str] = []
    own = config.search.points
    taken: list[dict[str, Any]] = []
    paper, changed = _paper(own, config, notes)
    room = places(config.search.trials, len(own), paper=paper is not None)
    if room:
        sources = _sources(config, domain, folders, notes)
        taken = _taken(_found(sources, config, notes), own, room, config, notes)
    if paper is not None and _stands_for(paper, taken):
        paper = None
    if paper is not None:
        notes.append("Warm start also tries the paper's defaults" + changed)
    points = first_tried(config.search.trials, own, taken, paper)
    search = settled.search.model_copy(update={"points": points})
    return settled.model_copy(update={"search": search}), notes


def _taken(
    found: Sequence[_Found], own: Sequence[Point], room: int, config: SweepConfig, notes: list[str]
) -> list[dict[str, Any]]:
    """The best points that are not there yet and can be trained."""
    taken: list[dict[str, Any]] = []
    for one in found:
        if len(taken) == room:
            break
        if not one.point or one.point in own:
            continue
        if why := _refusal(one.point, config):
            notes.append(f"Warm start leaves out {one.label}: {why}")
            continue
        taken.append(one.point)
        notes.append(f"Warm start from {one.label}{_changed(one.changes)}")
    return taken


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


def _found(sources: Sequence[_Source], config: SweepConfig, notes: list[str]) -> list[_Found]:
    """What earlier sweeps tried, the most promising first; where several tried the same, as the one with the best
    score has it."""
    tried: dict[str, _Found] = {}
    scores: list[dict[str, float]] = []
    for source in sources:
        of_source: dict[str, float] = {}
        try:
            trials = Ledger.replay(source.log).contenders()
        except (UserError, OSError) as error:
            notes.append(f"Warm start passes over {source.name}: {error}")
            continue
        for trial in trials:
            point, changes = _fitted(_settings(source, trial), config)
            key = json.dumps(point, sort_keys=True)
            label = f"{source.name} ({source.started.domain}, val Dice {trial.score:.3f})"
            one = _Found(point, changes, label, trial.score)
            of_source.setdefault(key, trial.score)  # contenders come best first
            if key not in tried or tried[key].score < one.score:
                tried[key] = one
        scores.append(of_source)
    return [tried[key] for key in ranked(scores)]


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


def _paper(own: Sequence[Point], config: SweepConfig, notes: list[str]) -> tuple[dict[str, Any] | None, str]:
    """The paper's defaults and what was changed to fit; None if they are not to be tried, with a word if one would
    expect them."""
    paper, changes = _fitted(PAPER, config)
    searched = paper.keys() - {MODEL_BOUND}
    if not searched or _is_fixed_otherwise(config) or _stands_for(paper, own):
        return None, ""
    if why := _refusal(paper, config):
        notes.append(f"Warm start leaves out the paper's defaults: {why}")
        return None, ""
    if len(own) >= config.search.trials:
        notes.append(f"Warm start has no place: search.points fill all {config.search.trials} trials")
        return None, ""
    return paper, _changed(changes)


def _changed(changes: Sequence[str]) -> str:
    return f", changed to fit: {', '.join(changes)}" if changes else ""


def _is_fixed_otherwise(config: SweepConfig) -> bool:
    """Whether a setting that is not searched is another than the paper's, so that no trial can be the paper's."""
    fixed = {path: value for path, value in PAPER.items() if path not in config.space and path != MODEL_BOUND}
    return any(_setting(config.run, path) != value for path, value in fixed.items())


def _setting(run: Any, path: str) -> Any:
    for part in path.split("."):
        run = getattr(run, part, None)
    return run


def _stands_for(paper: Point, points: Sequence[Point]) -> bool:
    """Whether one of the points is the paper's."""
    known = {path: value for path, value in paper.items() if path != MODEL_BOUND}
    return any(known.items() <= point.items() for point in points)
