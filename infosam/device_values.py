"""Tensors to a device and scalars from it, with as few waits as can be: a GPU stands still while one waits for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalar tensors of one device as plain numbers, all fetched together."""
    if not scalars:
        return {}
    values: list[float] = torch.stack([scalar.detach().float() for scalar in scalars.values()]).tolist()
    return dict(zip(scalars, values, strict=True))


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on another device. What goes from a processor to a GPU is copied behind what that has to do."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
