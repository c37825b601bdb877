"""Optimiser state and numbers on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infosam.checkpoint import load_optimizer, save_json, save_optimizer, save_tensors


def optimizer_over(seed: int) -> torch.optim.AdamW:
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.randn(3, generator=generator)) for _ in range(3)]
    return torch.optim.AdamW([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}], lr=0.1)


def step(optimizer: torch.optim.Optimizer, seed: int, idle: int = 2) -> None:
    """One step in which parameter number `idle` has no gradient."""
    generator = torch.Generator().manual_seed(seed)
    for number, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        parameter.grad = None if number == idle else torch.randn(3, generator=generator)
    optimizer.step()


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def test_an_optimiser_goes_on_bit_for_bit(tmp_path: Path) -> None:
    one, other = optimizer_over(0), optimizer_over(0)
    for number in range(3):
        step(one, number)
    save_optimizer(one, tmp_path / "optimizer.safetensors")
    with torch.no_grad():
        for mine, theirs in zip(parameters_of(one), (p for g in other.param_groups for p in g["params"]), strict=True):
            theirs.copy_(mine)
    load_optimizer(other, tmp_path / "optimizer.safetensors")
    for optimizer in (one, other):
        step(optimizer, 7, idle=1)
        step(optimizer, 8, idle=5)  # the one that had no moments gets its first here
    assert all(torch.equal(a, b) for a, b in zip(parameters_of(one), parameters_of(other), strict=True))
    assert [group["lr"] for group in other.param_groups] == [0.1, 0.5]


def test_tensors_of_any_layout(tmp_path: Path) -> None:
    tensors = {
        "turned": torch.arange(6.0).view(2, 3).T,
        "scalar": torch.tensor(3),
        "grad": torch.ones(2).requires_grad_(),
    }
    save_tensors(tensors, tmp_path / "x.safetensors", {"made": "here"})
    loaded = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_json_without_nan(tmp_path: Path) -> None:
    save_json({"b": 1, "a": 0.1}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"a": 0.1, "b": 1}
    with pytest.raises(ValueError, match="JSON compliant"):
        save_json({"a": float("nan")}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"a": 0.1, "b": 1}
