"""What runs inside a slot's long-lived training process: load once, then train one trial after another.

The process asks the slot's feed for a trial, sends a report after each epoch, and goes on only when the feed says so; a
trial that was stopped meanwhile is dropped between two epochs. A trial that raises is reported and dropped, the process
stays. Training itself is any module with the two functions of `TrainingEntry`."""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import sys
import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from infosam.config import ModelConfig, RunConfig
from infosam.errors import Diverged
from tune.events import OBJECTIVE


class EpochLike(Protocol):
    """One epoch as `infosam.training.EpochReport` has it."""

    @property
    def epoch(self) -> int: ...
    @property
    def values(self) -> dict[str, float]: ...
    @property
    def checkpoint(self) -> Path | None: ...
    @property
    def is_best(self) -> bool: ...


class TrainingEntry(Protocol):
    """The functions of a training module; `infosam.training` is the real one, `tune.noop` one that only counts."""

    def load_materials(self, model: ModelConfig, data: Path, *, device: str, baselines: bool) -> Any:
        """What all trials of a process share."""

    def train(self, config: RunConfig, materials: Any, *, checkpoint_dir: Path | None) -> Iterator[EpochLike]:
        """One report per epoch; goes on from the last checkpoint in `checkpoint_dir` by itself."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One trial for a worker."""

    trial_id: str
    config: Mapping[str, Any]  # a RunConfig as JSON
    checkpoint_dir: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """One finished epoch of a trial; `completed` with the last."""

    epoch: int
    values: Mapping[str, float]
    checkpoint: str | None
    is_best: bool
    completed: bool


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The end of a trial by an error. `fatal`: the process cannot train anything."""

    error: str  # one line
    trace: str
    fatal: bool = False


Message = Report | Failure


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs besides trials."""

    training: str  # module with the functions of TrainingEntry
    model: Mapping[str, Any]  # a ModelConfig as JSON
    data: str
    device: str
    threads: int


def training_entry(module: str) -> TrainingEntry:
    """The training module of that name."""
    return importlib.import_module(module)


def work(loop_config: Mapping[str, Any]) -> None:
    """The loop of a Ray Train worker, with keys `setup` (WorkerSetup) and `feed` (handle of a feed actor)."""
    import ray

    setup: WorkerSetup = loop_config["setup"]
    feed = loop_config["feed"]
    loaded: tuple[TrainingEntry, Any] | None = None
    seen = 0
    # The first trial is taken before loading, so that a failure to load is reported as that trial's.
    while (next_job := ray.get(feed.next_job.remote(seen))) is not None:
        seen, job = next_job
        if loaded is None:
            try:
                loaded = _load(setup)
            except Exception as error:  # noqa: BLE001 - the slot must learn why, whatever it was
                ray.get(feed.offer.remote(seen, failure_of(error, fatal=True)))
                return
        with contextlib.closing(messages(job, *loaded)) as stream:
            for message in stream:
                if not ray.get(feed.offer.remote(seen, message)):
                    break
        _free_memory()


def messages(job: Job, entry: TrainingEntry, materials: Any) -> Generator[Message, None, None]:
    """The trial as messages: reports, the last one completed, or a failure where it raised."""
    try:
        config = RunConfig.model_validate(job.config)
        last: Report | None = None
        for epoch in entry.train(config, materials, checkpoint_dir=Path(job.checkpoint_dir)):
            last = _report(epoch, completed=epoch.epoch >= config.train.epochs)
            if not math.isfinite(last.values[OBJECTIVE]):
                raise Diverged(f"{OBJECTIVE} is {last.values[OBJECTIVE]} in epoch {last.epoch}")
            yield last
        if last is None:
            raise RuntimeError(f"training of {job.trial_id} ended without a report")
        if not last.completed:  # the run itself chose to stop early
            yield Report(
                epoch=last.epoch, values=last.values, checkpoint=last.checkpoint, is_best=last.is_best, completed=True
            )
    except Exception as error:  # noqa: BLE001 - any error of a trial must end that trial only
        yield failure_of(error)


def failure_of(error: BaseException, *, fatal: bool = False) -> Failure:
    """An exception as data."""
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return Failure(
        error=lines[-1] if lines else repr(error), trace="".join(traceback.format_exception(error)), fatal=fatal
    )


def _load(setup: WorkerSetup) -> tuple[TrainingEntry, Any]:
    entry = training_entry(setup.training)
    if "torch" in sys.modules:  # a training without torch must not pay for importing it
        import torch

        torch.set_num_threads(setup.threads)
    model = ModelConfig.model_validate(setup.model)
    return entry, entry.load_materials(model, Path(setup.data), device=setup.device, baselines=False)


def _report(epoch: EpochLike, *, completed: bool) -> Report:
    return Report(
        epoch=epoch.epoch,
        values=dict(epoch.values),
        is_best=epoch.is_best,
        completed=completed,
        checkpoint=str(epoch.checkpoint) if epoch.checkpoint else None,
    )


def _free_memory() -> None:
    """A failed trial may leave cycles that hold its tensors, and the next one needs the room."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
