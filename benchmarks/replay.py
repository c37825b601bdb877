"""One search over a table of finished runs, on a simulated clock: no training, the same decisions.

Trials come from the product's samplers (`tune.samplers`) and are stopped by its schedulers (`tune.schedulers`), told
what a sweep would tell them, in the order in which things would happen on a number of slots."""

from __future__ import annotations

import bisect
import heapq
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import TrialScheduler
from trial_table import DomainTable, Run

from tune.config import SchedulerConfig, SearchConfig
from tune.config.sweep import default_space
from tune.events import OBJECTIVE
from tune.samplers import make_sampler
from tune.schedulers import EPOCH, make_scheduler
from tune.space import Choice, IntUniform, LogUniform, Space, encode, sample

SECONDS = "cost/seconds"


@dataclass(frozen=True)
class Rules:
    """How a search goes."""

    search: SearchConfig
    scheduler: SchedulerConfig
    slots: int = 4


@dataclass(frozen=True)
class Outcome:
    """What a search reached: after each epoch that any trial trained, seconds since its start and the best score."""

    domain: str
    best_known: float
    seconds: Sequence[float]
    best: Sequence[float]

    def epochs_to(self, share: float) -> float:
        """Epochs until `share` of the best known score; infinity if it was never reached."""
        at = bisect.bisect_left(self.best, share * self.best_known)
        return at + 1.0 if at < len(self.best) else math.inf

    def seconds_to(self, share: float) -> float:
        """As `epochs_to`, on the clock."""
        epochs = self.epochs_to(share)
        return self.seconds[int(epochs) - 1] if math.isfinite(epochs) else math.inf

    def regret_after(self, epochs: int) -> float:
        """Best known score minus the best so far."""
        return self.best_known - self.best[min(epochs, len(self.best)) - 1]


@dataclass
class _Trial:
    run: Run
    trial: optuna.trial.Trial
    name: SimpleNamespace  # what a scheduler asks of a trial
    epoch: int = 0


def replay(
    table: DomainTable,
    rules: Rules,
    *,
    seed: int,
    points: Sequence[Mapping[str, Any]] = (),
    until: float = math.inf,
) -> Outcome:
    """A search until every configuration of the table was tried.

    Args:
        points: configurations to try first; an empty one is sampled, as in a sweep.
        until: ends it as soon as this share of the best known score is reached; what comes after it costs time only."""
    return _Replay(table, rules, seed, points).run(until * table.best if math.isfinite(until) else math.inf)


class _Replay:
    def __init__(self, table: DomainTable, rules: Rules, seed: int, points: Sequence[Mapping[str, Any]]) -> None:
        self._table, self._rules = table, rules
        self._search = rules.search.model_copy(update={"seed": seed})
        self._space = default_space()
        self._points = list(points)
        self._left = dict(table.runs)
        self._places = {number: _place(self._space, run.values) for number, run in table.runs.items()}
        self._study = optuna.create_study(direction="maximize")
        epochs = max(len(run.epochs) for run in table.runs.values())
        self._scheduler: Any = make_scheduler(rules.scheduler, epochs)
        self._running: list[tuple[float, int, _Trial]] = []  # when its next epoch ends, number, trial
        self._count = 0

    def run(self, enough: float) -> Outcome:
        """The search up to this score."""
        for _ in range(self._rules.slots):
            self._start(0.0)
        seconds: list[float] = []
        best: list[float] = []
        while self._running and not (best and best[-1] >= enough):
            now, _, one = heapq.heappop(self._running)
            one.epoch += 1
            metrics = one.run.epochs[one.epoch - 1]
            seconds.append(now)
            best.append(max(metrics[OBJECTIVE], best[-1] if best else -math.inf))
            if self._goes_on(one, metrics):
                self._await(one, now)
            else:
                self._start(now)
        return Outcome(self._table.domain, self._table.best, seconds, best)

    def _start(self, now: float) -> None:
        """The next trial, if any configuration is left."""
        if not self._left:
            return
        proposed = (self._points.pop(0) if self._points else {}) or self._propose()
        run = self._left.pop(self._nearest(proposed))
        trial, name = self._add(run), SimpleNamespace(trial_id=f"t{self._count:04d}")
        self._count += 1
        self._scheduler.on_trial_add(_NOBODY, name)
        self._await(_Trial(run, trial, name), now)

    def _await(self, one: _Trial, now: float) -> None:
        # The median, because a machine that did other things as well made single epochs long.
        seconds = statistics.median(epoch.get(SECONDS, 1.0) for epoch in one.run.epochs)
        heapq.heappush(self._running, (now + seconds, one.trial.number, one))

    def _goes_on(self, one: _Trial, metrics: Mapping[str, float]) -> bool:
        """Tells study and scheduler of an epoch."""
        value = metrics[OBJECTIVE]
        one.trial.report(value, step=one.epoch)
        row = {**metrics, EPOCH: one.epoch, "training_iteration": one.epoch}
        if one.epoch == len(one.run.epochs):
            self._scheduler.on_trial_complete(_NOBODY, one.name, row)
            self._study.tell(one.trial, max(one.run.curve()))
            return False
        if self._scheduler.on_trial_result(_NOBODY, one.name, row) == TrialScheduler.STOP:
            self._study.tell(one.trial, state=TrialState.PRUNED)
            return False
        return True

    def _propose(self) -> dict[str, Any]:
        """What the sampler would try next. The question leaves no trace in the study."""
        self._study.sampler = make_sampler(self._search, self._count)
        asked = self._study.ask()
        found = sample(self._space, asked)
        self._study.tell(asked, state=TrialState.FAIL)
        return found

    def _nearest(self, values: Mapping[str, Any]) -> int:
        wanted = _place(self._space, values)
        return min(self._left, key=lambda number: (_distance(wanted, self._places[number]), number))

    def _add(self, run: Run) -> optuna.trial.Trial:
        """A configuration of the table as a running trial of the study."""
        fixed = optuna.trial.FixedTrial(encode(self._space, run.values))
        sample(self._space, fixed)
        made: FrozenTrial = optuna.trial.create_trial(
            state=TrialState.RUNNING, params=fixed.params, distributions=fixed.distributions
        )
        self._study.add_trial(made)
        return optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[-1]._trial_id)


_NOBODY = SimpleNamespace(get_live_trials=list)
"""What a scheduler asks of Tune while it only looks at numbers."""


def _place(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Each setting on a scale from 0 to 1 as it is drawn; choices stay what they are."""
    place: dict[str, Any] = {}
    for path, value in values.items():
        one = space[path]
        if isinstance(one, Choice):
            place[path] = value
            continue
        low, high = sorted(one.corners())[-2:]
        if isinstance(one, LogUniform) or (isinstance(one, IntUniform) and one.log):
            shown = math.log(one.encode(value))
            low, high = math.log(low), math.log(high)
        else:
            shown = float(value)
        place[path] = (shown - low) / (high - low)
    return place


def _distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Squared distance; a setting that only one of them has, or another choice, counts as a whole range."""
    total = 0.0
    for path in one.keys() | other.keys():
        first, second = one.get(path), other.get(path)
        if isinstance(first, float) and isinstance(second, float):
            total += (first - second) ** 2
        elif first != second:
            total += 1.0
    return total
