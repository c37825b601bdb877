"""A searcher that searches nothing: it hands Tune a fixed list of trials, and then what follows from their results.

Repeats and twins go through it, so that they run on the same warm slots as the search and never enter its study."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from tune.events import OBJECTIVE
from tune.finals import ListedTrial


class ListSearcher(Searcher):
    """Suggests the trials of a list in order, none twice.

    Args:
        trials: to run first.
        follow: asked once, when all of `trials` have ended, for the trials that depend on how they ended.
    """

    def __init__(self, trials: Sequence[ListedTrial], follow: Callable[[], Sequence[ListedTrial]]) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._waiting = deque(trials)
        self._follow: Callable[[], Sequence[ListedTrial]] | None = follow
        self._live: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial; None while the rest depends on trials that still run; FINISHED after the last."""
        if not self._waiting and not self._live and self._follow is not None:
            self._waiting.extend(self._follow())
            self._follow = None
        if self._waiting:
            self._live.add(trial_id)
            trial = self._waiting.popleft()
            return {"trial": trial.trial_id, "values": dict(trial.values)}
        return None if self._follow is not None else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial, whatever it was."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was run is in the event log, and the list is made anew from that."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""
