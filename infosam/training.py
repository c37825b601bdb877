"""One training run as a generator of `EpochReport`s: deterministic, resumable at every epoch, free of any tracker.

All chance comes from (seed, epoch), so a run resumed from an epoch's checkpoint gives the same numbers bit for bit on
a CPU, and a run leaves nothing behind on the materials it shares with others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from infosam.config import ModelConfig, OptimConfig, RunConfig
from infosam.data.dataset import Batch, SegmentationDataset
from infosam.data.prompts import mixed_prompts
from infosam.data.store import open_dataset
from infosam.errors import ConfigError, DataError, Diverged
from infosam.evaluation import batches, choose_device, mean_scores, score, trivial_means
from infosam.losses import relation_compression, relation_distillation, structure_loss
from infosam.run_state import RunState, best_checkpoint, load_latest, save_epoch
from infosam.sam.architectures import architecture
from infosam.sam.forward import SamOutput, decode, forward
from infosam.sam.weights import BaseSam, load_base
from infosam.student import Student, build_student

__all__ = ["EpochReport", "Materials", "best_checkpoint", "load_materials", "train"]

EMBEDDING_CACHE_MIB = 2048


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one epoch gave; `values` are flat metrics such as "val/dice", "loss/structure", "lr", "cost/seconds"."""

    epoch: int  # 1-based, goes on over resumes
    values: dict[str, float]
    checkpoint: Path | None  # folder of this epoch's state, complete on disk
    is_best: bool  # the best "val/dice" of this run so far


@dataclass(kw_only=True)
class Materials:
    """What every run on one data set and base shares. Runs read it and leave it as it was, but for the memory of
    teacher embeddings, which are a function of weights and image."""

    base: BaseSam
    train_set: SegmentationDataset
    val_set: SegmentationDataset
    device: torch.device
    zero_shot: dict[str, float]  # "val/box/dice", "val/box/iou", "val/none/dice", "val/none/iou"
    trivial: dict[str, float]  # same keys, the better trivial baseline
    _embeddings: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def data_digest(self) -> str:
        """Digest of the data set's content."""
        return self.train_set.store.card.digest

    @property
    def base_sha256(self) -> str:
        """Of the base weights' file."""
        return self.base.sha256

    @torch.no_grad()
    def teacher_embeddings(self, batch: Batch) -> Tensor:
        """Frozen teacher's image embeddings (B, D, h, w), remembered per image while memory allows.

        Images are encoded one by one: in a batch the last bits depend on who else is in it, and with them on which
        runs came before."""
        rows: list[Tensor] = []
        for image, index in zip(batch.image, batch.indices, strict=True):
            embedding = self._embeddings.get(index)
            if embedding is None:
                embedding = self.base.sam.image_encoder(image[None].to(self.device))[0]
                if len(self._embeddings) < (EMBEDDING_CACHE_MIB << 20) // embedding.nbytes:
                    self._embeddings[index] = embedding
            rows.append(embedding)
        return torch.stack(rows)


def load_materials(model: ModelConfig, data: Path, *, device: str = "auto", baselines: bool = True) -> Materials:
    """Loads base weights and data, and scores what is there before any training.

    `baselines` False leaves `zero_shot` and `trivial` empty, for workers that need not repeat it.
    Raises WeightsError, ConfigError or DataError."""
    store = open_dataset(data)
    base = load_base(model)
    train_set = SegmentationDataset(store, "train", base.spec.image_px)
    val_set = SegmentationDataset(store, "val", base.spec.image_px)
    target = choose_device(device)
    base.sam.to(target)
    zero_shot: dict[str, float] = {}
    trivial: dict[str, float] = {}
    if baselines:
        zero_shot = mean_scores(score(base.sam, val_set, device=target), "val")
        trivial = trivial_means(val_set, "val")
    return Materials(
        base=base, train_set=train_set, val_set=val_set, device=target, zero_shot=zero_shot, trivial=trivial
    )


def train(config: RunConfig, materials: Materials, *, checkpoint_dir: Path | None = None) -> Iterator[EpochReport]:
    """Trains a student epoch by epoch, from the last complete checkpoint in `checkpoint_dir` if there is one.

    Keeps the last and the best epoch's checkpoint. Raises Diverged at the first loss or gradient that is not finite,
    DataError for fewer images than one batch, ConfigError if `materials` or the checkpoints are of another model or
    configuration."""
    _check_model(config, materials)
    steps = steps_per_epoch(len(materials.train_set), config)
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
        state = state.after_epoch(values)
        folder = save_epoch(checkpoint_dir, config, state, student, optimizer) if checkpoint_dir else None
        yield EpochReport(epoch=state.epoch, values=values, checkpoint=folder, is_best=state.best_epoch == state.epoch)


def _check_model(config: RunConfig, materials: Materials) -> None:
    wanted, loaded = architecture(config.model.name, config.model.image_px), materials.base.spec
    if wanted != loaded:
        raise ConfigError(
            f"model: {wanted.name} at {wanted.image_px} px is configured, but {loaded.name} at {loaded.image_px} px "
            "is loaded; load the materials of this configuration"
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


def make_optimizer(student: Student, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW with one group each for encoder, decoder and relation module; `share` scales the peak learning rate."""
    groups = student.groups()
    shares = {"encoder": 1.0, "decoder": config.decoder_lr_ratio, "relation": 1.0}
    return torch.optim.AdamW(
        [{"params": groups[name], "share": share, "name": name} for name, share in shares.items() if groups[name]],
        lr=config.lr,
        weight_decay=config.weight_decay,
    )


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Of step number `step` out of `steps`: linear warm-up, then cosine from the peak to `floor` times the peak."""
    warmup = round(config.warmup_fraction * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.lr * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def objective(config: RunConfig, student: Student, output: SamOutput, teacher: SamOutput | None, mask: Tensor
              ) -> dict[str, Tensor]:  # fmt: skip
    """Named loss terms and their weighted sum "total"; `mask` (B, S, S) bool on the padded canvas, `teacher` None
    for plain PEFT. Information terms are in bits."""
    logits = F.interpolate(output.logits.float(), mask.shape[1:], mode="bilinear", align_corners=False)
    terms = {"structure": structure_loss(logits, mask.unsqueeze(1).float(), config.loss.structure)}
    total = terms["structure"]
    if teacher is not None:
        relation_teacher = student.relation(teacher.features, teacher.mask_token)
        relation_student = student.relation(output.features, output.mask_token)
        terms["compression"] = relation_compression(teacher.features, teacher.mask_token, relation_teacher)
        terms["distillation"] = relation_distillation(relation_teacher, relation_student)
        total = total + config.info.compression * terms["compression"]
        total = total + config.info.distillation * terms["distillation"]
    return {"total": total, **terms}


def _train_epoch(
    config: RunConfig, materials: Materials, student: Student, optimizer: torch.optim.Optimizer, epoch: int, steps: int
) -> dict[str, float]:
    """One pass over the train split; mean loss terms and the last learning rate."""
    generator = torch.Generator().manual_seed(config.train.seed * 1_000_003 + epoch)
    size = config.train.batch_size
    order = torch.randperm(len(materials.train_set), generator=generator)[: steps * size].tolist()
    sums: dict[str, float] = {}
    student.sam.train()
    for number, batch in enumerate(batches(materials.train_set, order, size)):
        rate = learning_rate(config.optim, epoch * steps + number, config.train.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        try:
            values = _train_step(config, materials, student, optimizer, batch, generator)
        except Diverged as what:
            raise Diverged(
                f"{what} in epoch {epoch + 1}, step {number + 1} of {steps}, at learning rate {rate:.3g}; "
                f"lower optim.lr (now {config.optim.lr:g}) or set optim.clip_norm"
            ) from None
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
    return {f"loss/{name}": value / steps for name, value in sums.items()} | {"lr": rate}


def _train_step(
    config: RunConfig,
    materials: Materials,
    student: Student,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    generator: torch.Generator,
) -> dict[str, float]:
    prompts = mixed_prompts(batch.mask, batch.resized_hw, config.prompts, generator=generator).to(materials.device)
    batch = batch.to(materials.device)
    teacher = None
    if config.info.active:
        with torch.no_grad():
            teacher = decode(materials.base.sam, materials.teacher_embeddings(batch), prompts)
    terms = objective(config, student, forward(student.sam, batch.image, prompts), teacher, batch.mask)
    values = {name: term.item() for name, term in terms.items()}
    if not math.isfinite(values["total"]):
        raise Diverged(f"the loss is {values['total']}")
    optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    parameters = [parameter for group in student.groups().values() for parameter in group]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm or math.inf)
    if not math.isfinite(norm):
        raise Diverged(f"the gradient's norm is {norm.item()}")
    optimizer.step()
    return values
