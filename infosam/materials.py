"""What all runs on one data set and base model share: weights, data, scores before any training, teacher embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from infosam.config import ModelConfig
from infosam.data.dataset import Batch, SegmentationDataset
from infosam.data.store import open_dataset
from infosam.errors import ConfigError
from infosam.evaluation import choose_device, mean_scores, score, trivial_means
from infosam.protocols import PROTOCOLS
from infosam.sam.architectures import architecture
from infosam.sam.weights import BaseSam, load_base

EMBEDDING_CACHE_MIB = 2048


@dataclass(kw_only=True)
class Materials:
    """What every run on one data set and base shares. Runs read it and leave it as it was, but for the memory of
    teacher embeddings, which are a function of weights and image."""

    base: BaseSam
    teacher: BaseSam  # the base itself unless the configuration names another
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

    @torch.no_grad()
    def teacher_embeddings(self, batch: Batch, *, remember: bool = True) -> Tensor:
        """Frozen teacher's image embeddings (B, D, h, w), remembered per image while memory allows.

        Images are encoded one by one: in a batch the last bits depend on who else is in it, and with them on which
        runs came before. `remember` False is for images that are not those of the data set, as after augmentation."""
        rows: list[Tensor] = []
        for image, index in zip(batch.image, batch.indices, strict=True):
            embedding = self._embeddings.get(index) if remember else None
            if embedding is None:
                embedding = self.teacher.sam.image_encoder(image[None].to(self.device))[0]
                if remember and len(self._embeddings) < (EMBEDDING_CACHE_MIB << 20) // embedding.nbytes:
                    self._embeddings[index] = embedding
            rows.append(embedding)
        return torch.stack(rows)


def load_materials(model: ModelConfig, data: Path, *, device: str = "auto", baselines: bool = True) -> Materials:
    """Loads base weights and data, and scores what is there before any training.

    `baselines` False leaves `zero_shot` and `trivial` empty, for workers that need not repeat it.
    Raises WeightsError, ConfigError or DataError."""
    store = open_dataset(data)
    target = choose_device(device)
    base = load_base(model)
    teacher = _load_teacher(model, base)
    base.sam.to(target)
    teacher.sam.to(target)
    protocol = PROTOCOLS[model.protocol]
    train_set = SegmentationDataset(store, "train", base.spec.image_px, protocol=protocol)
    val_set = SegmentationDataset(store, "val", base.spec.image_px, protocol=protocol)
    zero_shot: dict[str, float] = {}
    trivial: dict[str, float] = {}
    if baselines:
        zero_shot = mean_scores(score(base.sam, val_set, device=target), "val")
        trivial = trivial_means(val_set, "val")
    return Materials(
        base=base,
        teacher=teacher,
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
