"""What a report is about: a sweep as its folder tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from infosam.errors import UserError
from tune.config import SweepConfig, parse_sweep_config
from tune.event_log import NAME, read_events
from tune.events import EpochReported, Event, SweepEnded, SweepStarted
from tune.finals import FinalResult, Finals
from tune.footprint import Footprint
from tune.kept_scores import TEST_SCORES, read_scores
from tune.ledger import Ledger, TrialRecord
from tune.space import Distribution

if TYPE_CHECKING:
    from infosam.evaluation import EvaluationTable

SECONDS = "cost/seconds"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sweep."""

    folder: Path
    began_at: float  # of its first driver; seconds since the epoch
    last_at: float
    ledger: Ledger
    started: SweepStarted  # of its last driver
    config: SweepConfig
    finals: FinalResult | None
    champion: TrialRecord | None
    scores: EvaluationTable | None  # on the test images, of the champion
    _sizes: dict[str, float | None] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.started.sweep_id

    @property
    def space(self) -> Mapping[str, Distribution]:
        return self.config.space

    @property
    def select(self) -> str:
        """The prompt whose validation Dice decides."""
        return self.config.run.train.select

    @property
    def zero_shot(self) -> float | None:
        """Validation Dice of the untuned model with the prompt that decides."""
        return self.started.zero_shot.get("val/dice")

    @property
    def contenders(self) -> list[TrialRecord]:
        """Trials of the search that have a score and did not fail, best first."""
        return self.ledger.contenders()

    @property
    def bundle(self) -> Path | None:
        """The champion's adapter, as far as it lies there."""
        if self.champion is None:
            return None
        found = self.folder / "trials" / self.champion.trial_id / "bundle"
        return found if found.is_dir() else None

    def size(self, trial: TrialRecord) -> float | None:
        """What a trial trains in the image encoder, in MB; None where its settings do not say."""
        if trial.trial_id not in self._sizes:
            try:
                found = Footprint(self.config.run, self.config.constraints).sizes(trial.values)["adapter_mb"]
            except UserError:
                found = None
            self._sizes[trial.trial_id] = found
        return self._sizes[trial.trial_id]


def epoch_seconds(trial: TrialRecord) -> float | None:
    """Mean time of a trial's epochs."""
    known = [epoch.values[SECONDS] for epoch in trial.epochs if SECONDS in epoch.values]
    return sum(known) / len(known) if known else None


def values_over_epochs(trial: TrialRecord, name: str) -> tuple[list[int], list[float]]:
    """Epochs that reported a metric, rising, and the metric."""
    known: list[EpochReported] = sorted(
        (epoch for epoch in trial.epochs if name in epoch.values), key=lambda epoch: epoch.epoch
    )
    return [epoch.epoch for epoch in known], [epoch.values[name] for epoch in known]


def open_record(folder: Path, end: SweepEnded | None = None) -> Record:
    """The sweep in a folder; `end`: what its driver is about to say. Raises UserError."""
    log = folder / NAME
    events: list[Event] = [event for event, _ in read_events(log)] if log.is_file() else []
    ledger = Ledger()
    for event in [*events, *([end] if end else [])]:
        ledger(event)
    started = ledger.sweep
    if started is None:
        raise UserError(f"{log}: holds no sweep, its driver ended before the first trial; there is nothing to report")
    config = parse_sweep_config(yaml.safe_load(started.settings), [], source=str(log))
    finals = Finals(config.final, config.run, ledger).result() if config.final.active else None
    champion = finals.challenger if finals else ledger.champion()
    return Record(
        folder=folder,
        began_at=events[0].at,
        last_at=(end or events[-1]).at,
        ledger=ledger,
        started=started,
        config=config,
        finals=finals,
        champion=champion,
        scores=_scores(folder, ledger, champion),
    )


def _scores(folder: Path, ledger: Ledger, champion: TrialRecord | None) -> EvaluationTable | None:
    if champion is None or ledger.test is None or ledger.test.trial_id != champion.trial_id:
        return None
    file = folder / "trials" / champion.trial_id / TEST_SCORES
    return read_scores(file) if file.is_file() else None
