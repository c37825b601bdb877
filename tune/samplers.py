"""Optuna's samplers as a sweep uses them: made anew for each trial, from the sweep's seed and the trial's number.

So what is drawn for a trial depends on the seed, its number and what the study knows by then, not on how often a driver
died on the way: a resumed sweep goes on as an undisturbed one would."""

from __future__ import annotations

import bisect
import heapq
import warnings
from collections.abc import Container
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tune.config import SearchConfig

MEMORY = 250
"""Ended trials that tpe looks at. Its time grows with them; up to here it is Optuna's own, trial for trial."""
BEST = 25
"""Best completed trials that are among them however old they are: as many as tpe ever counts as good."""


class Recollection:
    """Which trials of one study tpe looks at.

    Kept for a sweep, it looks at each trial once after its end; made anew, it comes to the same."""

    def __init__(self) -> None:
        self._seen = 0
        self._open: list[int] = []
        self._ended: list[int] = []  # completed or pruned, ascending
        self._best: list[tuple[float, int]] = []  # heap of completed ones: value, and number below zero

    def of(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """All trials, or those under way, the newest that ended, and the best; `trials` are all of the study."""
        looked_at = [*self._open, *range(self._seen, len(trials))]
        self._seen, self._open = len(trials), [one for one in looked_at if not trials[one].state.is_finished()]
        for number in looked_at:
            self._note(trials[number])
        if len(self._ended) <= MEMORY:
            return trials
        kept = {-below for _, below in self._best}
        for number in reversed(self._ended):
            if len(kept) == MEMORY:
                break
            kept.add(number)
        kept.update(number for number in self._open if trials[number].state == TrialState.RUNNING)
        return [trials[number] for number in sorted(kept)]

    def _note(self, trial: FrozenTrial) -> None:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            bisect.insort(self._ended, trial.number)
        if trial.state == TrialState.COMPLETE:
            heapq.heappush(self._best, (trial.values[0], -trial.number))
            if len(self._best) > BEST:
                heapq.heappop(self._best)


def make_sampler(
    search: SearchConfig, number: int, refused: int = 0, recollection: Recollection | None = None
) -> BaseSampler:
    """The sampler for the trial with that number in the sweep, after `refused` configurations that break a bound.

    Where settings depend on others (`when`), tpe learns each on its own. qmc takes its sequence over the numeric
    settings of the first trial that ended, gp and nsga2 theirs over the settings all finished trials have; each draws
    the rest independently at random."""
    seed = _seed(search.seed, number, refused)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if search.sampler == "random":
            return RandomSampler(seed=seed)
        if search.sampler == "qmc":
            return QMCSampler(  # its sequence has one seed; where in it a trial stands is kept in the study
                scramble=True,
                seed=search.seed,
                independent_sampler=RandomSampler(seed=seed),
                warn_independent_sampling=False,
            )
        if search.sampler == "gp":
            return GPSampler(seed=seed, n_startup_trials=search.startup_trials, warn_independent_sampling=False)
        if search.sampler == "nsga2":
            return NSGAIISampler(seed=seed, population_size=max(2, search.startup_trials))
        # A trial under way counts as poor, so that slots do not all try the same neighbourhood at once.
        return _BoundedTPESampler(
            recollection or Recollection(), seed=seed, n_startup_trials=search.startup_trials, constant_liar=True
        )


def make_random_sampler(search: SearchConfig, number: int, refused: int) -> BaseSampler:
    """Independent draws, for where a sampler keeps proposing what cannot be trained."""
    return RandomSampler(seed=_seed(search.seed, number, refused))


class _BoundedTPESampler(TPESampler):
    """TPE that learns from MEMORY trials at most, so that the ten-thousandth costs no more than the first hundreds.

    For one trial of one study with one objective to maximise."""

    def __init__(self, recollection: Recollection, **settings: Any) -> None:
        super().__init__(**settings)
        self._recollection = recollection
        self._view: _View | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Settings that are drawn together."""
        return super().infer_relative_search_space(self._bounded(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Their values."""
        return super().sample_relative(self._bounded(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One of the others."""
        return super().sample_independent(self._bounded(study), trial, param_name, param_distribution)

    def _bounded(self, study: optuna.Study) -> _View:
        if self._view is None:
            self._view = _View(study, self._recollection)
        return self._view


class _View(optuna.Study):
    """What a sampler sees of a study."""

    def __init__(self, study: optuna.Study, recollection: Recollection) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._seen = recollection.of(study.get_trials(deepcopy=False))

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Takes the place of the method that Optuna's samplers ask; a test holds them to it."""
        return [trial for trial in self._seen if states is None or trial.state in states]


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
