"""Scalars from a device in one wait: a GPU stands still while a number is read from it."""

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
