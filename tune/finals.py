"""After the search: the best configurations again under other seeds, and the winner without the information terms.

One run says little: gains of the information terms are of the size of the spread between seeds. So configurations are
ranked by their mean over seeds, the run with the median score stands for the winner, and its twin without information
terms runs under the same seeds. What is left to run follows from the ledger alone, so a resumed sweep repeats nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from infosam.config import RunConfig
from tune.config import FinalConfig
from tune.ledger import Ledger, TrialRecord
from tune.space import Point, configured
from tune.trial_ids import Role, final_id

CONFIDENCE = 0.95
SEED = "train.seed"
WITHOUT_INFORMATION = {"info.compression": 0.0, "info.distillation": 0.0}
CUT_SHORT = ("user", "budget", "early_stopped", "plateau")
"""Reasons for which a run's best score is not that of its whole length."""


@dataclass(frozen=True, kw_only=True)
class ListedTrial:
    """One trial to run."""

    trial_id: str
    values: Point  # dotted path below RunConfig -> value


class PairedGain(NamedTuple):
    """Mean difference over seeds with its t interval, whose bounds are NaN for fewer than two seeds."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """One configuration over seeds."""

    origin: str  # trial of the search that found it
    values: Point
    runs: Mapping[int, TrialRecord]  # seed -> run of full length that did not fail
    failed: int

    @property
    def scores(self) -> list[float]:
        """Validation Dice of each run's best epoch, by seed."""
        return [self.runs[seed].score for seed in sorted(self.runs)]

    @property
    def mean(self) -> float:
        """Mean validation Dice; minus infinity without any run."""
        return statistics.fmean(self.scores) if self.runs else -math.inf

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds, NaN for fewer than two."""
        return statistics.stdev(self.scores) if len(self.runs) > 1 else math.nan

    @property
    def median_run(self) -> TrialRecord:
        """The run with the median score, the lower one of the middle two."""
        ordered = sorted(self.runs.items(), key=lambda one: (one[1].score, one[0]))
        return ordered[(len(ordered) - 1) // 2][1]


@dataclass(frozen=True, kw_only=True)
class FinalResult:
    """What the repeats and twins say."""

    ranking: Sequence[Repeated]  # best first, at least one with a run
    twin: Repeated | None  # the winner without information terms

    @property
    def winner(self) -> Repeated:
        """The configuration with the best mean."""
        return self.ranking[0]

    @property
    def challenger(self) -> TrialRecord:
        """The run that stands for the winner."""
        return self.winner.median_run

    @property
    def information_gain(self) -> PairedGain | None:
        """Winner minus twin under equal seeds; None without a common seed."""
        if self.twin is None:
            return None
        common = sorted(self.winner.runs.keys() & self.twin.runs.keys())
        return paired_gain([self.winner.runs[seed].score - self.twin.runs[seed].score for seed in common])


class Finals:
    """What is to be run after the search of `ledger`, and what it gave.

    Args:
        run: settings of every trial that are not searched.
        config: how many configurations and seeds, and whether with a twin.
    """

    def __init__(self, config: FinalConfig, run: RunConfig, ledger: Ledger) -> None:
        self._config = config
        self._run = run
        self._ledger = ledger

    @property
    def most_trials(self) -> int:
        """Upper bound of the trials that are left to run."""
        return self._config.seeds * (self._config.top + self._config.twin)

    def repeats(self) -> list[ListedTrial]:
        """Repeats of the best configurations that have not run to an end yet."""
        candidates = self._candidates()
        wanted = [
            ListedTrial(trial_id=final_id("repeat", trial.trial_id, number), values=self._seeded(trial.values, number))
            for trial in candidates
            for number in range(self._config.seeds)
            if not (number == 0 and _counts(trial))
        ]
        return [one for one in wanted if not self._has_ended(one.trial_id)]

    def twins(self) -> list[ListedTrial]:
        """Twins of the winner that have not run to an end yet; none if it has no information terms anyway."""
        result = self.result()
        if not self._config.twin or result is None:
            return []
        winner = self._ledger.trials[result.winner.origin]
        if not configured(self._run, winner.values).info.relational:
            return []
        values = _with(winner.values, WITHOUT_INFORMATION)
        wanted = [
            ListedTrial(trial_id=final_id("twin", winner.trial_id, number), values=self._seeded(values, number))
            for number in range(self._config.seeds)
        ]
        return [one for one in wanted if not self._has_ended(one.trial_id)]

    def result(self) -> FinalResult | None:
        """The ranking by mean over seeds, configurations of which a repeat failed last; None without any score."""
        repeated = [self._repeated("repeat", trial) for trial in self._candidates()]
        ranking = sorted((one for one in repeated if one.runs), key=lambda one: (one.failed > 0, -one.mean, one.origin))
        if not ranking:
            return None
        twin = self._repeated("twin", self._ledger.trials[ranking[0].origin])
        return FinalResult(ranking=ranking, twin=twin if twin.runs else None)

    def _candidates(self) -> list[TrialRecord]:
        return self._ledger.contenders()[: self._config.top]

    def _repeated(self, role: Role, trial: TrialRecord) -> Repeated:
        base = self._base_seed(trial.values)
        runs = {base: trial} if role == "repeat" and _counts(trial) else {}
        failed = 0
        for number in range(self._config.seeds):
            record = self._ledger.trials.get(final_id(role, trial.trial_id, number))
            if record is None:
                continue
            failed += record.end is not None and record.end.state == "FAILED"
            if _counts(record):
                runs[base + number] = record
        return Repeated(origin=trial.trial_id, values=trial.values, runs=runs, failed=failed)

    def _seeded(self, values: Point, number: int) -> Point:
        return _with(values, {SEED: self._base_seed(values) + number})

    def _base_seed(self, values: Point) -> int:
        return configured(self._run, values).train.seed

    def _has_ended(self, trial_id: str) -> bool:
        record = self._ledger.trials.get(trial_id)
        return record is not None and not record.is_open


def paired_gain(differences: Sequence[float]) -> PairedGain | None:
    """Mean of paired differences with Student's t interval over seeds; None for no pair."""
    if not differences:
        return None
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return PairedGain(mean, math.nan, math.nan, count)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return PairedGain(mean, mean - half, mean + half, count)


def _counts(trial: TrialRecord) -> bool:
    """Whether a run's score can stand beside those of full length."""
    end = trial.end
    return trial.best is not None and end is not None and end.state != "FAILED" and end.reason not in CUT_SHORT


def _with(values: Point, changes: Point) -> Point:
    """`values` with `changes` last, so that they win also over a whole group that was searched."""
    return {**{path: value for path, value in values.items() if path not in changes}, **changes}
