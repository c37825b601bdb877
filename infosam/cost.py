"""What training costs on this machine: seconds of a step and of a validated image, and the memory they take."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from infosam.config import RunConfig
from infosam.evaluation import PROMPTS, predictions
from infosam.materials import Materials
from infosam.optimisation import make_optimizer
from infosam.student import build_student
from infosam.training import steps_per_epoch, train_step, units_of

GPU_CONTEXT_GIB = 0.6
"""What CUDA itself takes of a GPU for each process, beside torch's tensors."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds and GiB, measured."""

    first_step_s: float  # with what is done once: the frozen teacher's embeddings, the choice of kernels
    step_s: float  # median of later steps
    image_s: float  # validating one image under all prompts
    steps: int  # steps of one epoch
    val_images: int
    memory_gib: float  # most main memory of this process so far, weights and libraries included
    gpu_memory_gib: float  # most memory of the GPU, 0 without one

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch after the first: all its steps, and the validation."""
        return self.steps * self.step_s + self.val_images * self.image_s


def measure(
    config: RunConfig, materials: Materials, *, processes: int = 1, steps: int = 2, images: int = 2, batch: int = 8
) -> Cost:
    """Takes `steps` + 1 steps of a fresh student on one batch and validates `images` batches of up to `batch` images.

    `processes` measures what one of so many would do of a batch. Nothing is written or kept. Raises Diverged,
    ConfigError or DataError as `infosam.training.train`, torch.OutOfMemoryError where the GPU is too small."""
    materials.check(config.model)
    units = units_of(config.train, materials)
    count = steps_per_epoch(len(units), config)
    own = units[: max(1, config.train.batch_size // processes)]
    if materials.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(materials.device)
    student = build_student(materials.base, config)
    optimizer = make_optimizer(student, config.optim)
    student.sam.train()
    taken: list[float] = []
    for number in range(steps + 1):
        started = time.perf_counter()
        train_step(config, materials, student, optimizer, own, 0, number)
        _finish(materials.device)
        taken.append(time.perf_counter() - started)
    student.sam.eval()
    shown = range(min(len(materials.val_set), images * batch))
    started = time.perf_counter()
    made = predictions(student.sam, materials.val_set, PROMPTS, device=materials.device, batch_size=batch, order=shown)
    done = sum(1 for _ in made)
    return Cost(
        first_step_s=taken[0],
        step_s=statistics.median(taken[1:]),
        image_s=(time.perf_counter() - started) / (done / len(PROMPTS)),
        steps=count,
        val_images=len(materials.val_set),
        memory_gib=peak_memory_gib(),
        gpu_memory_gib=_gpu_memory_gib(materials.device),
    )


def peak_memory_gib() -> float:
    """Most main memory this process has had so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # unlike getrusage it knows nothing of the process that started this one
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) / 2**20
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _gpu_memory_gib(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    return torch.cuda.max_memory_reserved(device) / 2**30 + GPU_CONTEXT_GIB


def _finish(device: torch.device) -> None:
    """Waits for the GPU, whose work is only queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
