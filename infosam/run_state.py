"""Checkpoints of a training run: one folder an epoch, complete or absent; the last and the best are kept."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from infosam.checkpoint import load_optimizer, save_json, save_optimizer, save_tensors
from infosam.config import RunConfig, validate
from infosam.errors import ConfigError
from infosam.student import Student

_FOLDER = re.compile(r"epoch-(\d{4,})")


@dataclass(frozen=True)
class RunState:
    """How far a run is. `history` holds the values of every epoch, so a report that got lost can be told again."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0
    best_dice: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)

    def after_epoch(self, values: dict[str, float]) -> RunState:
        """The state one epoch later; ties keep the earlier epoch."""
        better = values["val/dice"] > self.best_dice
        return RunState(
            epoch=self.epoch + 1,
            best_epoch=self.epoch + 1 if better else self.best_epoch,
            best_dice=values["val/dice"] if better else self.best_dice,
            history=[*self.history, values],
        )


def checkpoints(folder: Path) -> dict[int, Path]:
    """Complete checkpoints by epoch."""
    if not folder.is_dir():
        return {}
    matches = ((_FOLDER.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return {int(match.group(1)): path for match, path in matches if match}


def best_checkpoint(checkpoint_dir: Path) -> Path | None:
    """Folder of the best epoch of a run, None if it has no complete checkpoint yet."""
    found = checkpoints(checkpoint_dir)
    if not found:
        return None
    state = json.loads((found[max(found)] / "state.json").read_text(encoding="utf-8"))
    return found.get(state["best_epoch"])


def checkpoint_folder(checkpoint_dir: Path, epoch: int) -> Path:
    """Where an epoch's checkpoint lies once it is complete."""
    return checkpoint_dir / f"epoch-{epoch:04d}"


def save_epoch(
    folder: Path, config: RunConfig, state: RunState, student: Student, optimizer: torch.optim.Optimizer
) -> Path:
    """Writes the checkpoint of the epoch just done, then drops those neither last nor best."""
    target = checkpoint_folder(folder, state.epoch)
    staging = folder / f"{target.name}.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_tensors(student.tensors(), staging / "student.safetensors")
    save_optimizer(optimizer, staging / "optimizer.safetensors")
    content = {
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_dice": state.best_dice,
        "values": state.history[-1],
        "history": state.history,
        "config": config.model_dump(mode="json"),
    }
    save_json(content, staging / "state.json")
    if target.exists():
        shutil.rmtree(target)
    staging.replace(target)
    for epoch, path in checkpoints(folder).items():
        if epoch not in (state.epoch, state.best_epoch):
            shutil.rmtree(path)
    return target


def load_latest(folder: Path, config: RunConfig, student: Student, optimizer: torch.optim.Optimizer) -> RunState:
    """Fills student and optimiser from the last checkpoint; the zero state if there is none.

    Raises ConfigError if the folder belongs to a run with another configuration."""
    found = checkpoints(folder)
    if not found:
        return RunState()
    path = found[max(found)]
    content = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if validate(RunConfig, content["config"], str(path / "state.json")) != config:  # settings added since: default
        raise ConfigError(f"{folder}: holds checkpoints of another configuration; use another folder or empty it")
    student.load_tensors(load_file(path / "student.safetensors"))
    load_optimizer(optimizer, path / "optimizer.safetensors")
    return RunState(
        epoch=content["epoch"],
        best_epoch=content["best_epoch"],
        best_dice=content["best_dice"],
        history=content["history"],
    )
