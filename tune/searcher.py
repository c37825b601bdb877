"""Ray Tune's searcher interface over an Optuna study driven by ask and tell.

Trials are handed out to Tune, but how they went is learned from the sweep's events, after the log has them: so the
study never knows more than the log, and `resume` can bring it to the log's state after any death. Early-stopped trials
are told PRUNED with their intermediate values, so that the sampler never takes the score of a trial's first epoch for
its final one, and failed ones FAIL; a study belongs to one sweep."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from tune.config import SearchConfig
from tune.events import OBJECTIVE, EpochReported, Event, TrialEnded, TrialEvent, TrialStarted
from tune.footprint import Footprint
from tune.ledger import Ledger, TrialRecord
from tune.samplers import Recollection, make_random_sampler, make_sampler
from tune.space import Space, encode, sample
from tune.study_store import open_study
from tune.trial_ids import role_of

TRIAL_ID = "trial_id"
"""User attribute of a trial of the study: its id in the sweep. Configurations that were never trained have none."""
POINT = "point"
"""User attribute of a trial made from a point to try first: its number in `search.points`."""

STUBBORN = 20
"""Configurations refused in a row for one trial after which the sampler's place is taken by random draws."""
HOPELESS = 1000
"""Configurations refused in a row after which the search ends."""

SECONDS = "cost/seconds"


class OptunaSearcher(Searcher):
    """Suggests the trials of one sweep, and learns from its events: call it with each, after the log.

    Args:
        space: what is searched.
        search: sampler, seed and points to try first.
        study_name: unique to the sweep; a storage that already holds it is refused with a UserError.
        journal: file of the journal storage; None keeps the study in memory.
        footprint: how large configurations are; one that breaks a bound is never suggested.
        enough: asked before each trial; once it says True, none is suggested.
        owner: see `tune.study_store.open_study`.
    """

    def __init__(
        self,
        space: Space,
        search: SearchConfig,
        study_name: str,
        journal: Path | None,
        footprint: Footprint | None = None,
        enough: Callable[[], bool] = lambda: False,
        *,
        owner: str = "",
        resume: bool = False,
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._space, self._search, self._footprint, self._enough = space, search, footprint, enough
        self._weighs_two = search.against is not None
        directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if self._weighs_two else [])]
        self.study = open_study(study_name, search, journal, directions, owner=owner, resume=resume)
        self._recollection = Recollection()
        self._left: deque[optuna.trial.Trial] = deque()  # of a dead driver, to be handed out first
        self._live: dict[str, optuna.trial.Trial] = {}
        self._epochs: dict[str, dict[int, EpochReported]] = {}
        self._started: set[str] = set()
        self._count = 0
        if not resume:
            self._enqueue_points(range(len(search.points)))

    @classmethod
    def resume(
        cls,
        space: Space,
        search: SearchConfig,
        study_name: str,
        journal: Path | None,
        ledger: Ledger,
        footprint: Footprint | None = None,
        enough: Callable[[], bool] = lambda: False,
        *,
        owner: str = "",
    ) -> Self:
        """The searcher of a sweep whose driver ended before all its trials did, at the state the ledger tells.

        Trials that had ended are known; the others are suggested first, with their ids and values, so that they go on
        from their checkpoints. A study kept in memory is made again from the ledger."""
        searcher = cls(space, search, study_name, journal, footprint, enough, owner=owner, resume=True)
        searcher._catch_up([trial for trial in ledger.trials.values() if role_of(trial.trial_id) == "trial"])
        return searcher

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """The next trial: our own readable id, and its point of the space. FINISHED if there is to be none."""
        if self._enough():
            return str(Searcher.FINISHED)
        for refused in range(HOPELESS):
            if refused >= STUBBORN:
                self.study.sampler = make_random_sampler(self._search, self._count, refused)
            else:
                self.study.sampler = make_sampler(self._search, self._count, refused, self._recollection)
            trial = self._left.popleft() if self._left else self.study.ask()
            values = sample(self._space, trial)
            if self._is_allowed(trial, values):
                break
            self._refuse(trial)
        else:
            return str(Searcher.FINISHED)
        name = trial.user_attrs.get(TRIAL_ID)
        if name is None:
            name = f"t{self._count:04d}"
            self._count += 1
            trial.set_user_attr(TRIAL_ID, name)
        self._live[name] = trial
        self._epochs.setdefault(name, {})
        return {"trial": name, "values": values}

    def __call__(self, event: Event) -> None:
        """Takes in one event of the sweep; those of trials that this searcher did not suggest are no concern of it."""
        if not isinstance(event, TrialEvent) or event.trial_id not in self._live:
            return
        if isinstance(event, TrialStarted):
            self._started.add(event.trial_id)
        elif isinstance(event, EpochReported):
            self._note(event)
        elif isinstance(event, TrialEnded):
            self._tell(event)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the event of it follows at once, by way of the log."""

    def close(self) -> None:
        """Puts trials that never started back into the queue, so that none stays running in the study."""
        for name, trial in list(self._live.items()):
            if name not in self._started:
                self.study.enqueue_trial(trial.params, user_attrs={TRIAL_ID: name})
                self.study.tell(trial, state=TrialState.FAIL)
                del self._live[name]

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study lies in its storage and the rest follows from the event log, see `resume`."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a pickle of its settings; the study, and the way to its database, are not for that file."""
        return {"_metric": self._metric, "_mode": self._mode}

    def _is_allowed(self, trial: optuna.trial.Trial, values: dict[str, Any]) -> bool:
        """Whether a configuration keeps the bounds; the study is told by how much, whether it does or not."""
        if self._footprint is None or TRIAL_ID in trial.user_attrs:
            return True
        excess = self._footprint.excess(values)
        for name, amount in excess.items():
            trial.set_constraint(name, amount)
        return all(amount <= 0 for amount in excess.values())

    def _refuse(self, trial: optuna.trial.Trial) -> None:
        """A configuration that breaks a bound is over; a point that left settings open is tried with others."""
        self.study.tell(trial, state=TrialState.PRUNED)
        if POINT in trial.user_attrs:
            self._enqueue_points([trial.user_attrs[POINT]])

    def _enqueue_points(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.study.enqueue_trial(encode(self._space, self._search.points[number]), user_attrs={POINT: number})

    def _note(self, event: EpochReported) -> None:
        value = event.values.get(OBJECTIVE, math.nan)
        epochs = self._epochs[event.trial_id]
        if event.epoch in epochs or not math.isfinite(value):
            return
        epochs[event.epoch] = event
        if not self._weighs_two:  # Optuna keeps intermediate values of a single objective only
            with warnings.catch_warnings():  # of an epoch that is in the study already, after a resumption
                warnings.simplefilter("ignore", UserWarning)
                self._live[event.trial_id].report(value, step=event.epoch)

    def _tell(self, end: TrialEnded) -> None:
        trial, epochs = self._live.pop(end.trial_id), self._epochs.pop(end.trial_id)
        self._started.discard(end.trial_id)
        values = self._values(trial, list(epochs.values()))
        if end.state == "KILLED":
            self.study.tell(trial, state=TrialState.PRUNED)
        elif end.state == "FAILED" or values is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, values)

    def _values(self, trial: optuna.trial.Trial, epochs: list[EpochReported]) -> list[float] | None:
        """What a finished trial is told with, one value for each objective; None if it cannot be said."""
        if not epochs:
            return None
        best = max(epoch.values[OBJECTIVE] for epoch in epochs)
        if self._search.against is None:
            return [best]
        if self._search.against == "adapter_mb":
            assert self._footprint is not None, "against adapter_mb needs a footprint"
            return [best, self._footprint.sizes(sample(self._space, trial))["adapter_mb"]]
        seconds = [epoch.values[SECONDS] for epoch in epochs if SECONDS in epoch.values]
        return [best, sum(seconds) / len(seconds)] if seconds else None

    def _catch_up(self, records: list[TrialRecord]) -> None:
        """Brings a study that was taken up to the state of the log."""
        trials = self.study.get_trials()
        known = {one.user_attrs[TRIAL_ID]: one for one in trials if TRIAL_ID in one.user_attrs}
        self._count = max((int(name[1:]) + 1 for name in [*known, *(one.trial_id for one in records)]), default=0)
        for record in records:
            self._catch_up_with(record, known.pop(record.trial_id, None))
        taken = {record.trial_id for record in records}
        # Points come first, so that each trial of the log stands for one as long as there are any.
        queued = {one.user_attrs.get(POINT) for one in trials}
        self._enqueue_points(number for number in range(len(records), len(self._search.points)) if number not in queued)
        for one in trials:  # handed out, or about to be, when the driver died, and never seen by the log
            if one.state == TrialState.RUNNING and one.user_attrs.get(TRIAL_ID) not in taken:
                self._left.append(optuna.trial.Trial(self.study, one._trial_id))

    def _catch_up_with(self, record: TrialRecord, found: FrozenTrial | None) -> None:
        end = None if record.is_open else record.end
        if found is not None and found.state.is_finished() and end:
            return
        if found is None or found.state != TrialState.RUNNING:
            found = self._add_running(record)
        trial = optuna.trial.Trial(self.study, found._trial_id)
        self._live[record.trial_id], self._epochs[record.trial_id] = trial, {}
        for epoch in record.epochs:
            self._note(epoch)
        if end:
            self._tell(end)
        else:
            self._left.append(self._live.pop(record.trial_id))

    def _add_running(self, record: TrialRecord) -> FrozenTrial:
        """A trial of the log that the study does not have, or has closed too early."""
        fixed = optuna.trial.FixedTrial(encode(self._space, record.values))
        sample(self._space, fixed)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=fixed.params,
                distributions=fixed.distributions,
                user_attrs={TRIAL_ID: record.trial_id},
            )
        )
        return self.study.get_trials(deepcopy=False)[-1]
