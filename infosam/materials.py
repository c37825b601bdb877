"""What all runs on one data set and base model share: weights, data, scores before any training, encodings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from infosam.config import ModelConfig
from infosam.data.dataset import SegmentationDataset
from infosam.data.store import open_dataset
from infosam.errors import ConfigError
from infosam.evaluation import choose_device, mean_scores, score, trivial_means
from infosam.frozen import FrozenEncodings
from infosam.protocols import PROTOCOLS
from infosam.routing.fitting import fit_statistics
from infosam.routing.statistics import DomainStatistics
from infosam.sam.architectures import architecture
from infosam.sam.weights import BaseSam, load_base
from infosam.stored import Content, Encoding


@dataclass(kw_only=True)
class Materials:
    """What every run on one data set and base shares. Runs read it and leave it as it was, but for the memory of
    encodings, which are a function of weights and image."""

    base: BaseSam
    teacher: BaseSam  # the base itself unless the configuration names another
    train_set: SegmentationDataset
    val_set: SegmentationDataset
    device: torch.device
    zero_shot: dict[str, float]  # "val/box/dice", "val/box/iou", "val/none/dice", "val/none/iou"
    trivial: dict[str, float]  # same keys, the better trivial baseline
    teacher_encodings: FrozenEncodings  # of the images of the train split, as those of the base
    base_encodings: FrozenEncodings

    @cached_property
    def routing(self) -> DomainStatistics | None:
        """What the router must know to send images like the training ones to their adapter; None if they are too few.
        Made when first asked for: it depends on base and images alone, so all bundles of a sweep share it."""
        return fit_statistics(self.base, self.train_set, self.device)

    @property
    def data_digest(self) -> str:
        """Digest of the data set's content."""
        return self.train_set.store.card.digest

    @property
    def base_sha256(self) -> str:
        """Of the base weights' file."""
        return self.base.sha256

    def content(self, what: Encoding | Literal["train", "val"]) -> Content:
        """What a store holds of one kind of encodings, or of a split's resized images."""
        if what == "train":
            return self.train_set.content
        if what == "val":
            return self.val_set.content
        encodings = self.teacher_encodings if what.of == "teacher" else self.base_encodings
        return encodings.content(block=what.block, dtype=what.dtype, variants=what.variants)

    def check(self, model: ModelConfig) -> None:
        """Raises ConfigError unless these are the materials of `model`."""
        pairs = [("model", architecture(model.name, model.image_px), self.base.spec)]
        if model.teacher is not None:
            pairs.append(("model.teacher", architecture(model.teacher.name, model.image_px), self.teacher.spec))
        if model.protocol != self.train_set.protocol.name:
            raise ConfigError(
                f"model.protocol: {model.protocol} is configured, but images are prepared as "
                f"{self.train_set.protocol.name}; load the materials of this configuration"
            )
        for field_name, wanted, loaded in pairs:
            if wanted != loaded:
                raise ConfigError(
                    f"{field_name}: {wanted.name} at {wanted.image_px} px is configured, but {loaded.name} at "
                    f"{loaded.image_px} px is loaded; load the materials of this configuration"
                )


def load_materials(
    model: ModelConfig,
    data: Path,
    *,
    device: str = "auto",
    baselines: bool = True,
    stores: Path | None = None,
    like: Materials | None = None,
) -> Materials:
    """Loads base weights and data, and scores what is there before any training.

    `baselines` False leaves `zero_shot` and `trivial` empty, for workers that need not repeat it. `stores` is a folder
    of what the processes of a machine share (`infosam.stored`), read where it has something. `like` are the materials
    of other data for the same `model` and `device`, whose frozen models are shared instead of being loaded once more.
    Raises WeightsError, ConfigError or DataError."""
    store = open_dataset(data)
    target = choose_device(device)
    base = load_base(model) if like is None else like.base
    teacher = _load_teacher(model, base) if like is None else like.teacher
    base.sam.to(target)
    teacher.sam.to(target)
    protocol = PROTOCOLS[model.protocol]
    train_set = SegmentationDataset(store, "train", base.spec.image_px, protocol=protocol, stores=stores)
    val_set = SegmentationDataset(store, "val", base.spec.image_px, protocol=protocol, stores=stores)
    zero_shot: dict[str, float] = {}
    trivial: dict[str, float] = {}
    if baselines:
        zero_shot = mean_scores(score(base.sam, val_set, device=target), "val")
        trivial = trivial_means(val_set, "val")
    base_encodings = FrozenEncodings(base, train_set, target, stores)
    return Materials(
        base=base,
        teacher=teacher,
        base_encodings=base_encodings,
        teacher_encodings=base_encodings if teacher is base else FrozenEncodings(teacher, train_set, target, stores),
        train_set=train_set,
        val_set=val_set,
        device=target,
        zero_shot=zero_shot,
        trivial=trivial,
    )


def _load_teacher(model: ModelConfig, base: BaseSam) -> BaseSam:
    """The configured teacher, or the base. Raises ConfigError for one of another token grid or decoder width."""
    if model.teacher is None:
        return base
    settings = model.teacher
    spec = architecture(settings.name, base.spec.image_px)
    shapes = {"tokens along a side": "grid", "decoder channels": "decoder_width"}
    for what, name in shapes.items():
        theirs, ours = getattr(spec, name), getattr(base.spec, name)
        if theirs != ours:
            raise ConfigError(
                f"model.teacher: {spec.name} has {theirs} {what}, the student {base.spec.name} has {ours}; "
                "relations are compared token by token, so take a teacher of the same shape (vit_b, vit_l, vit_h)"
            )
    teacher = ModelConfig(name=settings.name, checkpoint=settings.checkpoint, image_px=base.spec.image_px)
    return load_base(teacher)
