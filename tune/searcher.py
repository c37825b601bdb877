"""Ray Tune's searcher interface over an Optuna study driven by ask and tell.

Unlike the stock one it tells early-stopped trials PRUNED with their intermediate values, so that the sampler never
takes the score of a trial's first epoch for its final one, and failed ones FAIL; a study belongs to one sweep."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tune.config import SearchConfig
from tune.events import OBJECTIVE
from tune.space import Space, encode, sample

if TYPE_CHECKING:
    from tune.worker import Failure, Report


class OptunaSearcher(Searcher):
    """Suggests the trials of one sweep and learns from their reports.

    Args:
        space: what is searched.
        search: sampler, seed and points to try first.
        study_name: unique to the sweep; a journal that already holds it is refused.
        journal: file of the journal storage; None keeps the study in memory.
    """

    def __init__(self, space: Space, search: SearchConfig, *, study_name: str, journal: Path | None) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._space = space
        storage: BaseStorage | None = JournalStorage(JournalFileBackend(str(journal))) if journal else None
        self.study = optuna.create_study(
            study_name=study_name, direction="maximize", sampler=_sampler(search), storage=storage
        )
        for point in search.points:
            self.study.enqueue_trial(encode(space, point))
        self._live: dict[str, optuna.trial.Trial] = {}
        self._seen: dict[str, dict[int, float]] = {}
        self._count = 0

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial: our own readable id, and its point of the space."""
        trial = self.study.ask()
        self._live[trial_id] = trial
        self._seen[trial_id] = {}
        suggestion = {"trial": f"t{self._count:04d}", "values": sample(self._space, trial)}
        self._count += 1
        trial.set_user_attr("trial_id", suggestion["trial"])
        return suggestion

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch of a running trial."""
        self._note(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial. The result of the stopping epoch arrives only here."""
        if trial_id not in self._live:
            return
        self._note(trial_id, result or {})
        trial, seen = self._live.pop(trial_id), self._seen.pop(trial_id)
        report: Report | Failure | None = (result or {}).get("report")
        if error or not seen or getattr(report, "error", None):
            self.study.tell(trial, state=TrialState.FAIL)
        elif getattr(report, "completed", False):
            self.study.tell(trial, max(seen.values()))
        else:
            self.study.tell(trial, state=TrialState.PRUNED)

    def close(self) -> None:
        """Tells every trial that never ended FAIL, so that none stays running in the study."""
        for trial_id in list(self._live):
            self.on_trial_complete(trial_id, error=True)

    def save(self, checkpoint_path: str) -> None:
        """Writes everything needed to go on: study, sampler with its random state, and running trials."""
        state = {"study": self.study, "live": self._live, "seen": self._seen, "count": self._count}
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Goes on from what `save` wrote. Only for files of one's own sweep: they are pickles."""
        state = pickle.loads(Path(checkpoint_path).read_bytes())
        self.study, self._live = state["study"], state["live"]
        self._seen, self._count = state["seen"], state["count"]

    def _note(self, trial_id: str, result: dict[str, Any]) -> None:
        epoch, value = result.get("epoch"), result.get(OBJECTIVE)
        seen = self._seen.get(trial_id)
        if seen is None or epoch is None or value is None or epoch in seen or not math.isfinite(value):
            return
        seen[epoch] = value
        self._live[trial_id].report(value, step=epoch)


def _sampler(search: SearchConfig) -> BaseSampler:
    if search.sampler == "random":
        return RandomSampler(seed=search.seed)
    return TPESampler(seed=search.seed, n_startup_trials=search.startup_trials)
