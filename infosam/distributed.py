"""What the training processes of one run exchange. With a single process every function leaves things as they are.

A run is data-parallel when torch's default process group exists; who started it (torchrun, Ray Train) does not matter.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Within it, the processes that torchrun started are one run; a process started alone stays alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _is_parallel() else 0


def world_size() -> int:
    """Processes of this run."""
    return dist.get_world_size() if _is_parallel() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process' consecutive part of a sequence whose length the number of processes divides."""
    size = len(items) // world_size()
    return items[rank() * size : (rank() + 1) * size]


def gather_rows(x: Tensor) -> Tensor:
    """Rows (B, ...) of all processes in the order of their ranks, (W B, ...), through which gradients flow back.

    Each process then computes the same loss of the global batch; divided by W in `average_gradients`, the sum over
    processes of what flows back is the gradient that one process with the whole batch would have."""
    if not _is_parallel():
        return x
    gathered: Tensor = _GatherRows.apply(x)
    return gathered


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces every gradient by its mean over processes. All processes must have gradients on the same parameters."""
    if not _is_parallel():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def average(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Mean over processes of each value; all must have the same names."""
    if not _is_parallel():
        return dict(values)
    names = sorted(values)
    tensor = torch.tensor([values[name] for name in names], dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return dict(zip(names, (tensor / world_size()).tolist(), strict=True))


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if _is_parallel():
        dist.barrier()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        """The adjoint of gathering: the sum over processes of the gradients of this process' rows."""
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return share(summed)  # type: ignore[return-value]


def _is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
