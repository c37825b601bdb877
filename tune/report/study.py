"""A sweep as a study in memory, for Optuna's own plots."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tune.events import OBJECTIVE
from tune.ledger import TrialRecord
from tune.report.record import Record, values_over_epochs

Second = Callable[[TrialRecord], float | None]


def study_of(record: Record, second: Second | None = None) -> optuna.Study:
    """The trials of the search with a score, early-stopped ones with the best they reached, in the order of their ids.

    Args:
        second: another objective, to be small; trials without it are left out."""
    directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if second else [])]
    study = optuna.create_study(directions=directions)
    for trial in sorted(record.contenders, key=lambda one: one.trial_id):
        also = [second(trial)] if second else []
        if None in also:
            continue
        params, distributions = _drawn(record, trial)
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                values=[trial.score, *(value for value in also if value is not None)],
                params=params,
                distributions=distributions,
                # Optuna keeps values of the way there for one objective only.
                intermediate_values={} if second else dict(zip(*values_over_epochs(trial, OBJECTIVE), strict=True)),
                user_attrs={"trial": trial.trial_id},
            )
        )
    return study


def common_settings(study: optuna.Study) -> list[str]:
    """Settings that every trial has and that are not equal in all of them."""
    trials = study.get_trials(deepcopy=False)
    if not trials:
        return []
    common = set.intersection(*(set(trial.params) for trial in trials))
    return sorted(name for name in common if len({str(trial.params[name]) for trial in trials}) > 1)


def _drawn(record: Record, trial: TrialRecord) -> tuple[dict[str, object], dict[str, BaseDistribution]]:
    """Each setting of a trial as Optuna knows it, whatever the others are."""
    params: dict[str, object] = {}
    distributions: dict[str, BaseDistribution] = {}
    for path, value in trial.values.items():
        one = record.space.get(path)
        if one is not None and one.contains(value):
            fixed = optuna.trial.FixedTrial({path: one.encode(value)})
            one.suggest(fixed, path)
            params |= fixed.params
            distributions |= fixed.distributions
    return params, distributions
