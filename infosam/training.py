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
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from infosam import distributed
from infosam.chance import seed_of
from infosam.config import RunConfig, TrainConfig
from infosam.data.dataset import Batch, Item, collate
from infosam.data.prompts import Prompts, training_prompts
from infosam.errors import ConfigError, DataError, Diverged
from infosam.evaluation import mean_scores, score
from infosam.frozen import FrozenEncodings
from infosam.materials import Materials, load_materials
from infosam.objective import information, objective, values_of
from infosam.optimisation import descend, learning_rate, make_optimizer
from infosam.processor import bf16_instructions
from infosam.run_state import RunState, best_checkpoint, checkpoint_folder, load_latest, save_epoch
from infosam.sam.encoder import encode, forget_graphs
from infosam.sam.forward import Tokens, decode, decode_tokens
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

    A resumed run first reports the epoch of that checkpoint again: whoever listened may have died before hearing of it.
    Keeps the last and the best epoch's checkpoint. Where torch's process group exists, every process calls this with
    the same arguments: a batch is divided among them, the first one writes checkpoints, all report the same values,
    and `checkpoint_dir` must be a folder they share. Raises Diverged at the first loss or gradient that is not finite,
    DataError for fewer images than one batch, ConfigError if `materials` or the checkpoints are of another model or
    configuration, or if processes cannot divide a batch evenly."""
    materials.check(config.model)
    _check_division(config.train)
    steps = steps_per_epoch(len(units_of(config.train, materials)), config)
    student = build_student(materials.base, config)
    optimizer = make_optimizer(student, config.optim)
    if config.train.compile:
        forget_graphs()
    state = load_latest(checkpoint_dir, config, student, optimizer) if checkpoint_dir else RunState()
    if state.epoch:
        yield _report(state, checkpoint_dir)
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
        if checkpoint_dir:
            if distributed.rank() == 0:
                save_epoch(checkpoint_dir, config, state, student, optimizer)
            distributed.wait_for_all()
        yield _report(state, checkpoint_dir)


def _report(state: RunState, checkpoint_dir: Path | None) -> EpochReport:
    return EpochReport(
        epoch=state.epoch,
        values=state.history[-1],
        checkpoint=checkpoint_folder(checkpoint_dir, state.epoch) if checkpoint_dir else None,
        is_best=state.best_epoch == state.epoch,
    )


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
    units = units_of(config.train, materials)
    order = [units[number] for number in torch.randperm(len(units), generator=generator)[: steps * size].tolist()]
    sums: dict[str, float] = {}
    student.sam.train()
    for number in range(steps):
        rate = learning_rate(config.optim, epoch * steps + number, config.train.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        own = distributed.share(order[number * size : (number + 1) * size])
        try:
            values = train_step(config, materials, student, optimizer, own, epoch, epoch * steps + number)
        except Diverged as what:
            raise Diverged(
                f"{what} in epoch {epoch + 1}, step {number + 1} of {steps}, at learning rate {rate:.3g}; "
                f"lower optim.lr (now {config.optim.lr:g}) or set optim.clip_norm"
            ) from None
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / steps for name, value in sums.items()} | {"lr": rate}


def train_step(
    config: RunConfig,
    materials: Materials,
    student: Student,
    optimizer: torch.optim.Optimizer,
    units: Sequence[Unit],
    epoch: int,
    step: int,
) -> dict[str, float]:
    """One step of the optimiser, over `train.accumulate` parts of the batch.

    The Gram matrices are those of the whole batch all the same: `_pulls` finds what its information terms ask of each
    part's output, and each part then goes backward on its own."""
    optimizer.zero_grad(set_to_none=True)
    count = config.train.accumulate
    size = len(units) // count
    parts = [_prepare(config, materials, units[part * size :][:size], epoch, step) for part in range(count)]
    values: dict[str, float] = {}
    pulls: Sequence[Tokens | None] = [None] * count
    if config.info.relational and count > 1:
        values, pulls = _pulls(config, materials, student, parts)
    for part, pull in zip(parts, pulls, strict=True):
        for name, value in _backward(config, materials, student, part, pull).items():
            values[name] = values.get(name, 0.0) + value / count
    values = distributed.average(values, materials.device)  # so that all processes see a loss that is not finite
    if not math.isfinite(values["loss/total"]):
        raise Diverged(f"the loss is {values['loss/total']}")
    norms = descend(optimizer, config.optim.clip_norm)
    return values | {f"grad/{name}": norm for name, norm in norms.items()}


def units_of(config: TrainConfig, materials: Materials) -> list[Unit]:
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


class Part(NamedTuple):
    """A part of a batch on its device: N images with their prompts and masks, `train.masks_per_image` of each."""

    images: Batch  # one row for each image
    prompts: Prompts
    mask: Tensor  # (N masks, S, S) bool


def _prepare(config: RunConfig, materials: Materials, units: Sequence[Unit], epoch: int, step: int) -> Part:
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
    indices, variants = [unit[0] for unit in units], batch.variants[::repeats]
    images = replace(batch, image=batch.image[::repeats], indices=indices, variants=variants)
    return Part(images, prompts, batch.mask)


def _teach(config: RunConfig, materials: Materials, part: Part) -> Tokens:
    """What the frozen teacher's relation is made of."""
    with torch.no_grad(), _autocast(config, materials):
        known = _known(config, materials.teacher_encodings, part, block=None)
        return decode_tokens(materials.teacher.sam, _repeated(config, known), part.prompts)


def _pulls(
    config: RunConfig, materials: Materials, student: Student, parts: Sequence[Part]
) -> tuple[dict[str, float], list[Tokens]]:
    """Values of the information terms over a batch in parts, and their gradient with respect to each part's tokens.

    The parts go forward once without a graph (gradient caching, Gao et al. 2021), so that no more than their tokens is
    held together. The relation module has its gradients of these terms afterwards."""
    looks: list[Tokens] = []
    for part in parts:
        with torch.no_grad(), _autocast(config, materials):
            looks.append(decode_tokens(student.sam, _encode(config, materials, student, part), part.prompts))
    own = Tokens(*(torch.cat(tensors).requires_grad_() for tensors in zip(*looks, strict=True)))
    teacher = Tokens(*map(torch.cat, zip(*(_teach(config, materials, part) for part in parts), strict=True)))
    result = information(config, student, own, teacher)
    result.total.backward()
    asked = [tensor.grad.chunk(len(parts)) for tensor in own if tensor.grad is not None]
    return values_of(result), [Tokens(*tensors) for tensors in zip(*asked, strict=True)]


def _backward(
    config: RunConfig, materials: Materials, student: Student, part: Part, pull: Tokens | None
) -> dict[str, float]:
    """Adds the gradients of one part of a batch to what is there; its loss terms.

    `pull`: gradient of the information terms with respect to its tokens; None computes these terms here."""
    relational = config.info.relational and pull is None
    teacher = _teach(config, materials, part) if relational or config.info.features > 0 else None
    with _autocast(config, materials):
        output = decode(student.sam, _encode(config, materials, student, part), part.prompts)
    result = objective(config, student, output, teacher, part.mask, relational=relational)
    loss = result.total / config.train.accumulate
    if pull is not None:
        loss = loss + sum((tokens * asked).sum() for tokens, asked in zip(output.tokens, pull, strict=True))
    loss.backward()
    return values_of(result)


def _encode(config: RunConfig, materials: Materials, student: Student, part: Part) -> Tensor:
    """The student's image embeddings; the frozen part of its encoder is known for images seen before."""
    encoder, start, options = student.sam.image_encoder, student.frozen_until, config.train
    if start is None:
        embeddings = _known(config, materials.base_encodings, part, block=None)
    elif start and config.cache.prefix:
        entered = _known(config, materials.base_encodings, part, block=start)
        embeddings = encode(encoder, entered, start=start, recompute=options.checkpointing, compiled=options.compile)
    else:
        embeddings = encode(encoder, part.images.image, recompute=options.checkpointing, compiled=options.compile)
    return _repeated(config, embeddings)


def _known(config: RunConfig, encodings: FrozenEncodings, part: Part, *, block: int | None) -> Tensor:
    return encodings.of(part.images, block=block, dtype=config.cache.dtype, variants=config.augment.variants)


def _repeated(config: RunConfig, embeddings: Tensor) -> Tensor:
    """One row for each mask."""
    count = config.train.masks_per_image
    return embeddings if count == 1 else embeddings.repeat_interleave(count, dim=0)


def _autocast(config: RunConfig, materials: Materials) -> torch.autocast:
    kind = materials.device.type
    return torch.autocast(kind, torch.bfloat16, enabled=uses_bf16(config.train, materials.device))


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether forward passes run in bfloat16; `auto` asks whether the device multiplies matrices of it faster."""
    if config.precision != "auto":
        return config.precision == "bf16"
    return device.type == "cuda" or bool(bf16_instructions())
