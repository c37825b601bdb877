"""How a sweep looks in MLflow: names, parameters, metrics, tags and dataset inputs of its runs. No calls to a server.

Two levels: one parent run per sweep, one child run per trial. Children carry only what was searched; the settings all
trials share are parameters of the parent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tune.events import OBJECTIVE, EpochReported, SweepEnded, SweepStarted
from tune.ledger import TrialRecord
from tune.trial_ids import role_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

TAG_LIMIT = 8000
PARAM_LIMIT = 6000
DIGEST_CHARACTERS = 36  # MLflow keeps no more of a dataset's digest

NAME_TAG = "mlflow.runName"
NOTE_TAG = "mlflow.note.content"
PARENT_TAG = "mlflow.parentRunId"
RUNNING_NOTE = "The sweep is running; its leaderboard appears here at the end."

STOP_TAGS = ("stop_reason", "error")
"""Tags of an ended run, taken away when it goes on."""

WIDTHS = {"rank": "", "width": "", "ratio": "r"}
"""Settings of a PEFT kind that say how wide it is, with what stands before the number in a name."""


def sweep_marks(sweep: SweepStarted, began_at: float) -> dict[str, str]:
    """Tags by which the runs of one sweep are found again, also among sweeps of one name from several machines."""
    began = datetime.fromtimestamp(began_at, UTC)
    return {"sweep_id": sweep.sweep_id, "sweep_start": began.isoformat(timespec="milliseconds")}


def trial_name(sweep: SweepStarted, trial: TrialRecord) -> str:
    """`polyp-t0042-lora8-d0.812`: domain, trial, kind and width of PEFT, and once it ended its best objective."""
    score = f"-d{trial.score:.3f}" if trial.best and trial.end else ""
    return f"{sweep.domain}-{trial.trial_id}{_peft(sweep, trial.values)}{score}"


def trial_tags(sweep: SweepStarted, trial: TrialRecord) -> dict[str, str]:
    """What to filter trials by, as far as it is known."""
    epochs = max((epoch.epoch for epoch in trial.epochs), default=0)
    tags = {
        **sweep.tags,
        "seed": str(trial.values.get("train.seed", sweep.tags.get("seed", ""))),
        "domain": sweep.domain,
        "role": role_of(trial.trial_id),
        "method": str(trial.values.get("peft.kind", sweep.params.get("peft.kind", "unknown"))),
        "rung": str(max((rung for rung in sweep.rungs if rung <= epochs), default=0)),
        NAME_TAG: trial_name(sweep, trial),
    }
    if trial.retries:
        tags |= {"retries": str(len(trial.retries)), "retried_after": trial.retries[-1].error}
    if trial.end is not None:
        tags["stop_reason"] = trial.end.reason
        if trial.end.error:
            tags["error"] = trial.end.error
    return tags


def sweep_tags(sweep: SweepStarted, end: SweepEnded | None) -> dict[str, str]:
    """Tags of the parent."""
    tags = {**sweep.tags, "domain": sweep.domain, "role": "sweep", NOTE_TAG: RUNNING_NOTE}
    return tags | {**end.tags, "stop_reason": end.reason, NOTE_TAG: end.note} if end else tags


BEST_METRIC = "val/best_dice"
"""MLflow sorts runs by the last value of a metric, and the last epoch is seldom the best: by this one they stand in the
order of the leaderboard."""


def epoch_metrics(sweep: SweepStarted, event: EpochReported) -> list[Metric]:
    """One point per value at step = epoch, the gain over the untuned model, and BEST_METRIC at each new best."""
    values = dict(event.values)
    if event.is_best and OBJECTIVE in values:
        values[BEST_METRIC] = values[OBJECTIVE]
    if OBJECTIVE in values and OBJECTIVE in sweep.zero_shot:
        values["delta/dice_vs_zero_shot"] = values[OBJECTIVE] - sweep.zero_shot[OBJECTIVE]
    return metrics(values, at=event.at, step=event.epoch)


def metrics(values: Mapping[str, float], *, at: float, step: int) -> list[Metric]:
    """Points of one moment, in seconds since the epoch."""
    from mlflow.entities import Metric

    return [Metric(name, value, milliseconds(at), step) for name, value in values.items()]


def params(values: Mapping[str, Any]) -> list[Param]:
    """Settings as text, cut where MLflow would refuse them."""
    from mlflow.entities import Param

    return [Param(path, str(value)[:PARAM_LIMIT]) for path, value in values.items()]


def run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """Tags, cut where MLflow would refuse them."""
    from mlflow.entities import RunTag

    return [RunTag(name, value[:TAG_LIMIT]) for name, value in tags.items()]


def dataset_inputs(sweep: SweepStarted, splits: Sequence[str]) -> list[DatasetInput]:
    """The dataset's splits as inputs of a run, each with the digest of the whole."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            dataset=Dataset(
                name=f"{sweep.data['name']}/{split}",
                digest=str(sweep.data["digest"])[:DIGEST_CHARACTERS],
                source_type="local",
                source=json.dumps({"uri": f"file://{quote(str(sweep.data['source']))}"}),
                profile=json.dumps({"images": sweep.data["counts"].get(split, 0), "digest": sweep.data["digest"]}),
            ),
            tags=[InputTag("mlflow.data.context", split)],
        )
        for split in splits
    ]


def milliseconds(at: float) -> int:
    """MLflow's unit of time."""
    return int(at * 1000)


def _peft(sweep: SweepStarted, values: Mapping[str, Any]) -> str:
    """`-lora8` or `-adapter-r0.25`; without width where the kind has none."""
    # The fixed width belongs to the fixed kind; a searched kind has a width only among its own values.
    known = values if "peft.kind" in values else {**sweep.params, **values}
    kind = known.get("peft.kind")
    if kind is None:
        return ""
    for name, mark in WIDTHS.items():
        width = known.get(f"peft.{name}")
        if width is not None:
            return f"-{kind}{'-' if mark else ''}{mark}{width:g}"
    return f"-{kind}"
