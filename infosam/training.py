"""One training run as a generator of `EpochReport`s: deterministic, resumable at every epoch, free of any tracker.

All chance comes from (seed, epoch, image), so a run resumed from an epoch's checkpoint gives the same numbers bit for
bit on a CPU, a batch divided over processes is the batch of one process, and a run leaves nothing behind on the
materials it shares with others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from infosam import distributed
from infosam.chance import seed_of
from infosam.config import RunConfig, TrainConfig
from infosam.data.dataset import Batch, Item, collate
from infosam.data.prompts import training_prompts
from infosam.errors import ConfigError, DataError, Diverged
from infosam.evaluation import mean_scores, score
from infosam.materials import Materials, load_materials
from infosam.objective import objective
from infosam.optimisation import descend, learning_rate, make_optimizer
from infosam.run_state import RunState, best_checkpoint, checkpoint_folder, load_latest, save_epoch
from infosam.sam.forward import decode
from infosam.student import Student, build_student

__all__ = ["EpochReport", "Materials", "best_checkpoint", "load_materials", "train"]


Unit = tuple[int, ...]  # rows of the train split that show one image


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one epoch gave; `values` are flat metrics such as "val/dice", "loss/structure", "lr", "cost/seconds"."""

    epoch: int  # 1-based, goes on over resumes
    values: dict[str, float]
    checkpoint: Path | None  # folder of this epoch's state, complete on disk
    is_best: bool  # the best "val/dice" of this run so far


def train(config: RunConfig, materials: Materials, *, checkpoint_dir: Path | None = None) -> Iterator[EpochReport]:
    """Trains a student epoch by epoch, from the last complete checkpoint in `checkpoint_dir` if there is one.

    Keeps the last and the best epoch's checkpoint. Where torch's process group exists, every process calls this with
    the same arguments: a batch is divided among them, the first one writes checkpoints, all report the same values,
    and `checkpoint_dir` must be a folder they share. Raises Diverged at the first loss or gradient that is not finite,
    DataError for fewer images than one batch, ConfigError if `materials` or the checkpoints are of another model or
    configuration, or if processes cannot divide a batch evenly."""
    materials.check(config.model)
    _check_division(config.train)
    steps = steps_per_epoch(len(_units(config.train, materials)), config)
    student = build_student(materials.base, config)
    optimizer = make_optimizer(student, config.optim)
    state = load_latest(checkpoint_dir, config, student, optimizer) if checkpoint_dir else RunState()
    while state.epoch < config.train.epochs:
        started = time.perf_counter()
        values = _train_epoch(config, materials, student, optimizer, state.epoch, steps)
        student.sam.eval()
        values |= mean_scores(score(student.sam, materials.val_set, device=materials.device), "val")
        values["val/dice"] = values[f"val/{config.train.select}/dice"]
        values["val/iou"] = values[f"val/{config.train.select}/iou"]
        values["cost/seconds"] = time.perf_counter() - started
        values = distributed.average(values, materials.device)
        state = state.after_epoch(values)
        folder = None
        if checkpoint_dir:
            if distributed.rank() == 0:
                save_epoch(checkpoint_dir, config, state, student, optimizer)
            distributed.wait_for_all()
            folder = checkpoint_folder(checkpoint_dir, state.epoch)
        yield EpochReport(epoch=state.epoch, values=values, checkpoint=folder, is_best=state.best_epoch == state.epoch)


def steps_per_epoch(images: int, config: RunConfig) -> int:
    """Full batches in an epoch; the rest of the images is left out, a different rest every epoch.

    Raises DataError for fewer images than one batch: the Gram matrices have the size of a batch."""
    steps = images // config.train.batch_size
    if steps == 0:
        raise DataError(
            f"the train split has {images} images, fewer than train.batch_size = {config.train.batch_size}; "
            "lower the batch size or add images"
        )
    return steps


def _check_division(config: TrainConfig) -> None:
    parts = distributed.world_size() * config.accumulate
    if config.batch_size % parts:
        raise ConfigError(
            f"train.batch_size = {config.batch_size} must be a multiple of {parts}, training processes times "
            f"train.accumulate ({distributed.world_size()} x {config.accumulate}): they divide the batch among them"
        )


def _train_epoch(
    config: RunConfig, materials: Materials, student: Student, optimizer: torch.optim.Optimizer, epoch: int, steps: int
) -> dict[str, float]:
    """One pass over the train split; mean loss terms, what is watched beside them, and the last learning rate."""
    generator = torch.Generator().manual_seed(config.train.seed * 1_000_003 + epoch)
    size = config.train.batch_size
    units = _units(config.train, materials)
    order = [units[number] for number in torch.randperm(len(units), generator=generator)[: steps * size].tolist()]
    sums: dict[str, float] = {}
    student.sam.train()
    for number in range(steps):
        rate = learning_rate(config.optim, epoch * steps + number, config.train.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        own = distributed.share(order[number * size : (number + 1) * size])
        try:
            values = _train_step(config, materials, student, optimizer, own, epoch, epoch * steps + number)
        except Diverged as what:
            raise Diverged(
                f"{what} in epoch {epoch + 1}, step {number + 1} of {steps}, at learning rate {rate:.3g}; "
                f"lower optim.lr (now {config.optim.lr:g}) or set optim.clip_norm"
            ) from None
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / steps for name, value in sums.items()} | {"lr": rate}


def _train_step(
    config: RunConfig,
    materials: Materials,
    student: Student,
    optimizer: torch.optim.Optimizer,
    units: Sequence[Unit],
    epoch: int,
    step: int,
) -> dict[str, float]:
    """One step of the optimiser, over `train.accumulate` forward passes."""
    values: dict[str, float] = {}
    optimizer.zero_grad(set_to_none=True)
    parts = config.train.accumulate
    size = len(units) // parts
    for part in range(parts):
        own = units[part * size : (part + 1) * size]
        for name, value in _backward(config, materials, student, own, epoch, step).items():
            values[name] = values.get(name, 0.0) + value / parts
    values = distributed.average(values, materials.device)  # so that all processes see a loss that is not finite
    if not math.isfinite(values["loss/total"]):
        raise Diverged(f"the loss is {values['loss/total']}")
    norms = descend(optimizer, config.optim.clip_norm)
    return values | {f"grad/{name}": norm for name, norm in norms.items()}


def _units(config: TrainConfig, materials: Materials) -> list[Unit]:
    """What an epoch goes through: rows, or images with all their rows where several masks of one are decoded."""
    if config.masks_per_image == 1:
        return [(index,) for index in range(len(materials.train_set))]
    return materials.train_set.store.images("train")


def _load(config: RunConfig, materials: Materials, units: Sequence[Unit], epoch: int) -> Batch:
    """`train.masks_per_image` rows of each unit, one after the other."""
    items: list[Item] = []
    for unit in units:
        rng = np.random.default_rng([config.train.seed, 3, epoch, unit[0]])
        rows = np.resize(rng.permutation(unit), config.train.masks_per_image).tolist()
        if config.augment.active:
            items += materials.train_set.augmented(rows, config.augment, rng)
        else:
            items += [materials.train_set[row] for row in rows]
    return collate(items)


def _backward(
    config: RunConfig, materials: Materials, student: Student, units: Sequence[Unit], epoch: int, step: int
) -> dict[str, float]:
    """Adds the gradients of one part of a batch to what is there; its loss terms."""
    batch = _load(config, materials, units, epoch)
    repeats = config.train.masks_per_image
    prompts = training_prompts(
        batch.mask,
        batch.resized_hw,
        config.prompts,
        batch_seed=seed_of(config.train.seed, 1, step),
        seeds=[
            seed_of(config.train.seed, 2, epoch, index, number % repeats) for number, index in enumerate(batch.indices)
        ],
    ).to(materials.device)
    batch = batch.to(materials.device)
    images = replace(batch, image=batch.image[::repeats], indices=[unit[0] for unit in units])
    with torch.autocast(materials.device.type, torch.bfloat16, enabled=uses_bf16(config.train, materials.device)):
        teacher = None
        if config.info.active:
            with torch.no_grad():
                known = materials.teacher_embeddings(images, remember=not config.augment.active)
                teacher = decode(materials.teacher.sam, known.repeat_interleave(repeats, dim=0), prompts)
        embeddings = student.sam.image_encoder(images.image).repeat_interleave(repeats, dim=0)
        output = decode(student.sam, embeddings, prompts)
    result = objective(config, student, output, teacher, batch.mask)
    (result.total / config.train.accumulate).backward()
    values = {f"loss/{name}": term.item() for name, term in {"total": result.total, **result.terms}.items()}
    return values | {f"info/{name}": value.item() for name, value in result.watched.items()}


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether forward passes run in bfloat16."""
    return config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
