"""What runs inside a slot's long-lived training processes: load once, then train one trial after another.

A process asks the slot's feed for a trial, sends a report after each epoch, and goes on only when the feed says so; a
trial that was stopped meanwhile is dropped between two epochs, in all processes of the slot alike. A trial that raises
is reported and dropped, the process stays. Training itself is any module with the functions of `TrainingEntry`."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import math
import sys
import traceback
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from infosam.config import ModelConfig, RunConfig
from infosam.errors import Diverged, UserError
from tune.events import OBJECTIVE
from tune.home import of_this_machine
from tune.telemetry import Meter

MEMORY_ADVICE = (
    "this trial alone failed: `infosam calibrate` finds settings that fit without changing the batch size, which is "
    "part of the objective; or lower model.image_px, or give a worker more (resources.gpus_per_worker, so that fewer "
    "trials share a GPU; resources.memory_gib_per_worker)"
)


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

    def load_materials(
        self,
        model: ModelConfig,
        data: Path,
        *,
        device: str,
        baselines: bool,
        stores: Path | None = None,
        like: Any = None,
    ) -> Any:
        """What all trials of a process on `data` share.

        `stores`: folder of what the processes of this machine share; `like`: materials of other data, for the same
        model and device, whose frozen models are taken over."""

    def train(self, config: RunConfig, materials: Any, *, checkpoint_dir: Path | None) -> Iterator[EpochLike]:
        """One report per epoch; goes on from the last checkpoint in `checkpoint_dir` by itself.

        The report of that checkpoint comes first, once more: the process may have died before anybody heard of it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One trial for a worker."""

    trial_id: str
    config: Mapping[str, Any]  # a RunConfig as JSON
    checkpoint_dir: str
    data: str  # folder of the images
    mirror: str | None = None  # where its checkpoints are kept as well, see `tune.mirror`


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The `turn`-th trial of a group of processes; without job the slot closes."""

    turn: int
    job: Job | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One finished epoch of a trial; `completed` with the last."""

    epoch: int
    values: Mapping[str, float]
    checkpoint: str | None
    is_best: bool
    completed: bool
    starts: int = 1  # of the trial's processes in this slot, with those that died


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The end of a trial by an error. `fatal`: the process cannot train anything; `disk_full`: no trial can be kept."""

    error: str  # one line
    trace: str
    fatal: bool = False
    disk_full: bool = False
    node: str | None = None  # of Ray, where it happened, if it was fatal
    starts: int = 1  # of the trial's processes in this slot


Message = Report | Failure


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """What a worker needs besides trials."""

    training: str  # module with the functions of TrainingEntry
    model: Mapping[str, Any]  # a ModelConfig as JSON
    device: str
    threads: int
    backend: str  # of torch.distributed, where a trial has several processes
    exchange_timeout_s: float  # longest wait for another process
    stores: str | None = None  # folder of `tune.encoding_stores`; None: each process keeps its own in memory
    stores_limit_bytes: int | None = None  # of a machine's part of that folder
    shared: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Of each data set, by its folder, the stores every machine is to have: the name of a split for its images, or the
    fields of an `infosam.stored.Encoding`."""
    gpu_share: float = 0.0  # of a GPU, for each process
    fetch: Mapping[str, str] = field(default_factory=dict)  # path -> address, see `tune.fetched`


def training_entry(module: str) -> TrainingEntry:
    """The training module of that name."""
    return importlib.import_module(module)


def work(loop_config: Mapping[str, Any]) -> None:
    """The loop of a Ray Train worker, with keys `setup` (WorkerSetup) and `feed` (handle of a feed actor)."""
    from tune.team import Team

    setup: WorkerSetup = loop_config["setup"]
    team = Team(loop_config["feed"], backend=setup.backend, timeout_s=setup.exchange_timeout_s)
    materials: dict[str, Any] = {}  # of each domain that had a trial here, by the folder of its images
    # The first trial is taken before loading, so that a failure to load is reported as that trial's.
    while (job := team.next_job()) is not None:
        try:
            entry = training_entry(setup.training)
            team.link()
            if job.data not in materials:
                materials[job.data] = load(entry, setup, job.data, like=next(iter(materials.values()), None))
        except Exception as error:  # noqa: BLE001 - the slot must learn why, whatever it was
            failure = failure_of(error, fatal=not materials)  # with others loaded, the fault is the domain's
            team.agree(replace(failure, node=team.node))
            if not materials:
                return
            continue
        with contextlib.closing(messages(job, entry, materials[job.data])) as stream:
            for message in stream if job.mirror is None else mirrored(stream, job, is_first=team.rank == 0):
                if not team.agree(message):
                    break
        team.unlink()
        _free_memory()


def messages(job: Job, entry: TrainingEntry, materials: Any) -> Generator[Message, None, None]:
    """The trial as messages: reports, the last one completed, or a failure where it raised."""
    try:
        config = RunConfig.model_validate(job.config)
        meter, last = Meter(), None
        for epoch in entry.train(config, materials, checkpoint_dir=Path(job.checkpoint_dir)):
            last = _report(epoch, meter, completed=epoch.epoch >= config.train.epochs)
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


def mirrored(stream: Iterator[Message], job: Job, *, is_first: bool) -> Iterator[Message]:
    """A trial that begins with what its mirror holds, and tells of an epoch when its checkpoint is there.

    `is_first`: whether this process is the one of the trial that writes checkpoints. A mirror that cannot be reached
    is to a sweep what a full disk is: no trial can be kept."""
    from tune.bucket import Bucket
    from tune.mirror import pull, push

    assert job.mirror is not None
    folder = Path(job.checkpoint_dir)
    try:
        bucket = Bucket(job.mirror)
        pull(folder, bucket)
        for message in stream:
            if is_first and isinstance(message, Report):
                push(folder, bucket, message.epoch)
            yield message
    except OSError as error:
        yield replace(failure_of(error), disk_full=True)
    except Exception as error:  # noqa: BLE001 - as in `messages`
        yield failure_of(error)


def failure_of(error: BaseException, *, fatal: bool = False) -> Failure:
    """An exception as data; one about memory says what helps."""
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    line = lines[-1] if lines else repr(error)
    if _is_out_of_memory(error):
        line = f"out of memory ({lines[0] if lines else line}); {MEMORY_ADVICE}"
    trace = "".join(traceback.format_exception(error))
    return Failure(error=line, trace=trace, fatal=fatal, disk_full=_is_disk_full(error))


def _is_disk_full(error: BaseException) -> bool:
    # safetensors tells of it in words only.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


def _is_out_of_memory(error: BaseException) -> bool:
    # By name, since torch must not be imported for it; on a processor torch has no class of its own for it.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def load(entry: TrainingEntry, setup: WorkerSetup, data: str, *, like: Any = None) -> Any:
    """The materials of a process, and what the processes of its machine share if no other has made it."""
    if setup.fetch:
        from tune.fetched import fetch_all

        fetch_all(setup.fetch)
    if "torch" in sys.modules:  # a training without torch must not pay for importing it
        import torch

        torch.set_num_threads(setup.threads)
        if setup.device != "cpu" and 0 < setup.gpu_share < 1 and torch.cuda.is_available():
            # A trial that takes more than its share of a GPU fails alone, instead of those it shares with.
            torch.cuda.set_per_process_memory_fraction(setup.gpu_share)
    model = ModelConfig.model_validate(setup.model)
    stores = None if setup.stores is None else of_this_machine(Path(setup.stores))
    found = entry.load_materials(model, Path(data), device=setup.device, baselines=False, stores=stores, like=like)
    if stores is not None and hasattr(found, "content"):
        _make_missing(found, setup.shared.get(data, ()), stores, setup.stores_limit_bytes)
    return found


def _make_missing(materials: Any, shared: Sequence[Any], folder: Path, limit_bytes: int | None) -> None:
    """What the sweep could not make on this machine, which came after it began: the first process here makes it, which
    takes what a first epoch would, and the others wait for it. Where it cannot, each keeps its own in memory."""
    from infosam.stored import Encoding

    for what in shared:
        content = materials.content(what if isinstance(what, str) else Encoding(*what))
        if not content.path(folder).exists():
            try:
                content.build(folder, limit_bytes=limit_bytes)
            except UserError as error:
                warnings.warn(f"{error}; every process keeps its own in memory", stacklevel=2)
                return


def _report(epoch: EpochLike, meter: Meter, *, completed: bool) -> Report:
    return Report(
        epoch=epoch.epoch,
        values={**meter.read(), **epoch.values},
        is_best=epoch.is_best,
        completed=completed,
        checkpoint=str(epoch.checkpoint) if epoch.checkpoint else None,
    )


def _free_memory() -> None:
    """A failed trial may leave cycles that hold its tensors, and the next one needs the room.

    Raises RuntimeError if the GPU lost its state, as after a failed assertion in a kernel: only a new process helps."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
