"""Optimiser, learning-rate schedule and gradient step of a run."""

from __future__ import annotations

import math

import torch

from infosam.config import OptimConfig
from infosam.device_values import numbers
from infosam.distributed import average_gradients
from infosam.errors import Diverged
from infosam.student import Student


def make_optimizer(student: Student, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam(W) with a group each for encoder, decoder and relation module; `share` scales the peak learning rate."""
    shares = {"encoder": 1.0, "decoder": config.decoder_lr_ratio, "relation": 1.0}
    groups = [
        {"params": parameters, "share": shares[name], "name": name}
        for name, parameters in student.groups().items()
        if parameters
    ]
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Of step number `step` out of `steps`: linear warm-up, then cosine from the peak to `floor` times the peak."""
    warmup = round(config.warmup_fraction * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.lr * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def descend(optimizer: torch.optim.Optimizer, clip_norm: float | None) -> dict[str, float]:
    """One step along the gradients, averaged over processes and clipped to a common norm; norms of each group before.

    Raises Diverged for a norm that is not finite, before any weight changes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    average_gradients(parameters)
    gradients = {
        group["name"]: [parameter.grad for parameter in group["params"] if parameter.grad is not None]
        for group in optimizer.param_groups
    }
    norms = numbers({name: torch.nn.utils.get_total_norm(some) for name, some in gradients.items() if some})
    norms = {name: norms.get(name, 0.0) for name in gradients}
    norm = math.hypot(*norms.values())
    if not math.isfinite(norm):
        raise Diverged(f"the gradient's norm is {norm}")
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, torch.tensor(norm))
    optimizer.step()
    return norms
