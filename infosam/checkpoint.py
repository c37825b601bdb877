"""State on disk without pickle: safetensors for tensors, JSON for the rest, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file through a temporary one, so a reader never sees half of it."""
    temporary = path.with_name(path.name + ".part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, temporary, metadata=dict(metadata or {}))
    temporary.replace(path)


def save_json(content: Mapping[str, Any], path: Path) -> None:
    """Writes JSON through a temporary file; NaN is refused because JSON has none."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
    temporary.replace(path)


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """The moments of every parameter, named by its position; learning rates belong to the schedule, not here."""
    state = optimizer.state_dict()["state"]
    tensors = {
        f"{index}.{key}": torch.as_tensor(value) for index, moments in state.items() for key, value in moments.items()
    }
    save_tensors(tensors, path)


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Puts saved moments back on an optimiser over the same parameters in the same order."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(path).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
