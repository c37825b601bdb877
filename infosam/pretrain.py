"""Pre-training of vit_nano on procedural scenes: promptable segmentation from nothing but a generator.

Progressive resizing: most steps run on a small canvas, the last ones on the architecture's own, with position
embeddings resized in between (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"). Scene i of a seed
is always the same, so a run resumed from its checkpoint continues as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from segment_anything.modeling import Sam
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from infosam.checkpoint import load_optimizer, save_json, save_optimizer
from infosam.config import PromptConfig, Strict
from infosam.data.prompts import box_prompt, mixed_prompts, point_prompt
from infosam.data.transforms import pad_mask, prepare_image
from infosam.errors import ConfigError
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.forward import decode_all
from infosam.sam.weights import load_state, resize_positions, save_state
from infosam.synthetic.scenes import Scene, SceneMaker

Optimizers = dict[str, torch.optim.Optimizer]

VALIDATION_SEED = 1_000_003  # of scenes that no training seed uses


class PretrainConfig(Strict):
    """The recipe of a pre-training run; written beside the weights it made."""

    small_px: int = Field(default=128, ge=64, multiple_of=8)
    """Canvas of the first stage, in pixels."""
    small_steps: int = Field(default=4400, ge=0)
    """Steps on the small canvas."""
    full_steps: int = Field(default=600, ge=0)
    """Steps on the architecture's own canvas."""
    images_per_step: int = Field(default=8, ge=1)
    """Scenes per step."""
    masks_per_image: int = Field(default=4, ge=1)
    """Masks, each with a prompt of its own, per scene and step."""
    lr: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Muon (Jordan et al. 2024) and AdamW; 150 steps of warm-up, cosine to a hundredth."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of matrices; vectors and embeddings have none."""
    prompts: PromptConfig = PromptConfig(box=0.75, point=0.25, none=0.0, box_jitter=0.03)
    """Shares of prompts; a scene has no single truth without a prompt."""
    seed: int = Field(default=0, ge=0)
    """Seeds initialisation, scenes and prompts."""
    bf16: bool = True
    """Autocast to bfloat16; the loss is computed in float32."""

    @model_validator(mode="after")
    def _does_something(self) -> PretrainConfig:
        if not self.steps:
            raise ValueError("small_steps and full_steps are both 0, so there is nothing to train")
        if self.prompts.points:
            raise ValueError(f"prompts.points must be 0 in pre-training, got {self.prompts.points}: use box and point")
        return self

    @property
    def steps(self) -> int:
        """Steps of both stages."""
        return self.small_steps + self.full_steps


@dataclass(frozen=True)
class PretrainReport:
    """Progress of a run after `step` steps: mean loss since the last report, IoU on unseen scenes."""

    step: int
    loss: float
    box_iou: float
    point_iou: float


@dataclass(frozen=True)
class _SceneBatch:
    images: Tensor  # (B, 3, S, S)
    masks: Tensor  # (B * K, S, S) bool, K masks of each image in turn
    resized_hw: list[tuple[int, int]]  # B * K sizes of the frames, without padding


class _Scenes(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Scene i as a prepared image, K of its masks, chosen with repetition where it has fewer, and its frame's size."""

    def __init__(self, side_px: int, *, seed: int, masks: int, indices: range) -> None:
        self._side_px, self._seed, self._masks, self._indices = side_px, seed, masks, indices
        self._maker: SceneMaker | None = None

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, Tensor]:
        if self._maker is None:  # built in the loading process: the texture bank is large to send
            self._maker = SceneMaker(self._side_px, seed=self._seed)
        index = self._indices[position]
        scene: Scene = self._maker(index)
        rng = np.random.default_rng([self._seed, 2, index])
        chosen = rng.permutation(len(scene.masks))[: self._masks]
        chosen = np.resize(chosen, self._masks)
        height, width = scene.image.shape[:2]
        masks = torch.stack([pad_mask(mask, self._side_px) for mask in scene.masks[chosen]])
        return prepare_image(scene.image, self._side_px), masks, torch.tensor([height, width])


def pretrain(config: PretrainConfig, folder: Path, *, report_every: int = 250) -> Iterator[PretrainReport]:
    """Trains vit_nano, writing `folder`/weights.safetensors, state.json and the optimiser at each report.

    Continues from `folder` where it holds an unfinished run of the same recipe; raises ConfigError for another one's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    step, sam = _restore(config, folder)
    optimizers = _optimizers(sam, config)
    if step:
        for name, optimizer in optimizers.items():
            load_optimizer(optimizer, folder / f"{name}.safetensors")
    while step < config.steps:
        stage_end = config.small_steps if step < config.small_steps else config.steps
        side_px = config.small_px if step < config.small_steps else architecture("vit_nano").image_px
        if sam.image_encoder.img_size != side_px:
            sam = _on_canvas(sam, side_px)
            optimizers = _optimizers(sam, config)
        losses: list[Tensor] = []
        for batch in _batches(config, side_px, step, stage_end):
            for optimizer in optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = config.lr * schedule(step, config.steps)
            losses.append(_step(sam, optimizers, batch, config, step))
            step += 1
            if step % report_every == 0 or step == stage_end:
                yield _report(sam, optimizers, config, folder, step, torch.stack(losses).mean().item())
                losses = []


def schedule(step: int, steps: int, warmup: int = 150) -> float:
    """Learning rate of a step as a share of the peak: linear warm-up, then cosine to 0.01."""
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def pretrain_loss(logits: Tensor, predicted_iou: Tensor, target: Tensor) -> Tensor:
    """BCE + Dice of the single mask, of the best of three (Kirillov et al. 2023, section 3), and the IoU head's error.

    BCE is summed over the canvas and divided by the area of the mask's box, so that small objects count as much as
    large ones; a plain mean leaves the model predicting nothing for hundreds of steps.
    Shapes: logits (P, 4, h, w), predicted_iou (P, 4), target (P, h, w) in [0, 1]."""
    truth = target.unsqueeze(1).expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(dim=(2, 3)) / _extent(target)
    probability = logits.sigmoid()
    overlap, total = (probability * truth).sum(dim=(2, 3)), (probability + truth).sum(dim=(2, 3))
    per_mask = bce + 1 - (2 * overlap + 1) / (total + 1)
    with torch.no_grad():
        predicted, actual = logits > 0, truth > 0.5
        union = (predicted | actual).sum(dim=(2, 3)).clamp(min=1)
        iou = (predicted & actual).sum(dim=(2, 3)) / union
    iou_error = F.mse_loss(predicted_iou, iou)
    return per_mask[:, 0].mean() + 0.25 * per_mask[:, 1:].amin(dim=1).mean() + 0.25 * iou_error


def _extent(target: Tensor) -> Tensor:
    """(P, h, w) -> (P, 1): area of each mask's box in cells, at least a sixteenth of the canvas."""
    present = target > 0
    area = present.any(dim=1).sum(dim=1) * present.any(dim=2).sum(dim=1)
    return area.clamp(min=target[0].numel() // 16).unsqueeze(1)


@torch.no_grad()
def validate(sam: Sam, *, scenes: int = 96, seed: int = VALIDATION_SEED) -> tuple[float, float]:
    """Mean IoU of one mask per unseen scene, with its exact box and with one point, at the canvas' resolution."""
    side_px = sam.image_encoder.img_size
    data = _Scenes(side_px, seed=seed, masks=1, indices=range(scenes))
    scores: dict[str, list[float]] = {"box": [], "point": []}
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, scenes, 16):
        images, masks, _ = zip(*(data[i] for i in range(start, min(start + 16, scenes))), strict=True)
        truth = torch.cat(masks)
        embeddings = sam.image_encoder(torch.stack(images))
        boxes = box_prompt(truth, jitter=0.0, generator=None)
        kinds = {"box": boxes, "point": point_prompt(truth, generator=generator)}
        for kind, prompts in kinds.items():
            logits, _ = decode_all(sam, embeddings, prompts)
            predicted = F.interpolate(logits[:, :1], truth.shape[1:], mode="bilinear")[:, 0] > 0
            union = (predicted | truth).sum(dim=(1, 2)).clamp(min=1)
            scores[kind] += ((predicted & truth).sum(dim=(1, 2)) / union).tolist()
    return float(np.mean(scores["box"])), float(np.mean(scores["point"]))


def _step(sam: Sam, optimizers: Optimizers, batch: _SceneBatch, config: PretrainConfig, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    prompts = mixed_prompts(batch.masks, batch.resized_hw, config.prompts, generator=generator)
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=config.bf16):
        embeddings = sam.image_encoder(batch.images).repeat_interleave(config.masks_per_image, dim=0)
        logits, predicted_iou = decode_all(sam, embeddings, prompts)
    target = F.adaptive_avg_pool2d(batch.masks.float(), (logits.shape[-2], logits.shape[-1]))
    loss = pretrain_loss(logits.float(), predicted_iou.float(), target)
    sam.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
    for optimizer in optimizers.values():
        optimizer.step()
    return loss.detach()


def _batches(config: PretrainConfig, side_px: int, start: int, end: int) -> Iterator[_SceneBatch]:
    size = config.images_per_step
    data = _Scenes(side_px, seed=config.seed, masks=config.masks_per_image, indices=range(start * size, end * size))
    workers = 1 if (os.cpu_count() or 1) < 4 else min(8, (os.cpu_count() or 1) // 2)
    unused = torch.Generator()  # else the loader draws a seed for its workers from the global one
    loader = DataLoader(data, batch_size=size, num_workers=workers, prefetch_factor=4, generator=unused)
    for images, masks, sizes in loader:
        frames = [(int(height), int(width)) for height, width in sizes.repeat_interleave(masks.shape[1], dim=0)]
        yield _SceneBatch(images, masks.flatten(0, 1), frames)


def _optimizers(sam: Sam, config: PretrainConfig) -> Optimizers:
    """Muon for the matrices of linear layers, AdamW for everything else; weight decay on matrices only."""
    linear = {f"{name}.weight" for name, module in sam.named_modules() if isinstance(module, torch.nn.Linear)}
    named = {name: p for name, p in sam.named_parameters() if "mask_downscaling" not in name}
    others = [p for name, p in named.items() if name not in linear]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    matrices = [p for name, p in named.items() if name in linear]
    return {
        "muon": torch.optim.Muon(
            matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        "adamw": torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98)),
    }


def _restore(config: PretrainConfig, folder: Path) -> tuple[int, Sam]:
    state_file = folder / "state.json"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        sam = build_sam(architecture("vit_nano", config.small_px))
    sam.train()
    if not state_file.exists():
        return 0, sam
    state = json.loads(state_file.read_text())
    begun = PretrainConfig.model_validate(state["config"])  # settings added since have their defaults
    if begun != config:
        own, asked = begun.model_dump(mode="json"), config.model_dump(mode="json")
        changed = [f"{key} {own.get(key)!r}, not {asked[key]!r}" for key in asked if own.get(key) != asked[key]]
        raise ConfigError(f"{folder} holds a run of another recipe ({'; '.join(changed)}); choose another folder")
    if state["image_px"] != sam.image_encoder.img_size:
        sam = _on_canvas(sam, state["image_px"])
    sam.load_state_dict(load_state(folder / "weights.safetensors"))
    return int(state["step"]), sam


def _on_canvas(sam: Sam, side_px: int) -> Sam:
    """The same SAM on another canvas, position embeddings resized."""
    other = build_sam(architecture("vit_nano", side_px))
    other.load_state_dict(resize_positions(sam.state_dict(), other))
    return other.train()


def _report(
    sam: Sam, optimizers: Optimizers, config: PretrainConfig, folder: Path, step: int, loss: float
) -> PretrainReport:
    """Scores unseen scenes and saves, state.json last."""
    sam.eval()
    box_iou, point_iou = validate(sam)
    sam.train()
    save_state(sam.state_dict(), folder / "weights.safetensors")
    for name, optimizer in optimizers.items():
        save_optimizer(optimizer, folder / f"{name}.safetensors")
    report = PretrainReport(step=step, loss=loss, box_iou=box_iou, point_iou=point_iou)
    state = {
        "step": step,
        "image_px": sam.image_encoder.img_size,
        "config": config.model_dump(mode="json"),
        "box_iou": box_iou,
        "point_iou": point_iou,
    }
    save_json(state, folder / "state.json")
    return report
