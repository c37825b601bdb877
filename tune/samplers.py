"""Optuna's samplers as a sweep uses them: made anew for each trial, from the sweep's seed and the trial's number.

So what is drawn for a trial depends on the seed, its number and what the study knows by then, not on how often a driver
died on the way: a resumed sweep goes on as an undisturbed one would."""

from __future__ import annotations

import warnings

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from tune.config import SearchConfig


def make_sampler(search: SearchConfig, number: int, refused: int = 0) -> BaseSampler:
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
        return TPESampler(seed=seed, n_startup_trials=search.startup_trials, constant_liar=True)


def make_random_sampler(search: SearchConfig, number: int, refused: int) -> BaseSampler:
    """Independent draws, for where a sampler keeps proposing what cannot be trained."""
    return RandomSampler(seed=_seed(search.seed, number, refused))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
