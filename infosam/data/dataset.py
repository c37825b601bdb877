"""Samples on SAM's canvas, for training and validation. Knows no model.

Letters in shapes: B images, (H, W) original pixels, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from infosam.config import AugmentConfig
from infosam.data import transforms
from infosam.data.augment import augment, mirrored
from infosam.data.card import SPLITS, Split
from infosam.data.store import Sample, Store
from infosam.device_values import to_device
from infosam.errors import DataError
from infosam.protocols import STRICT, ProtocolConfig
from infosam.stored import Content, SharedRows

_SIZES_BYTES = 16

__all__ = ["Batch", "Item", "Sample", "SegmentationDataset", "collate"]


@dataclass(frozen=True)
class Item:
    """One image and mask on the canvas. Sizes are (height, width)."""

    image: Tensor  # (3, S, S) float32, normalised and padded as the protocol says
    mask: Tensor  # (S, S) bool, padding False
    valid: Tensor  # (S, S) bool, False on padding
    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    id: str
    index: int  # position in the split
    variant: int = 0  # which way it is mirrored, of `infosam.config.FLIPS`


@dataclass(frozen=True)
class Batch:
    """Stacked items."""

    image: Tensor  # (B, 3, S, S) float32
    mask: Tensor  # (B, S, S) bool
    valid: Tensor  # (B, S, S) bool
    original_hw: list[tuple[int, int]]
    resized_hw: list[tuple[int, int]]
    ids: list[str]
    indices: list[int]
    variants: list[int]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on another device, without waiting for a GPU."""
        image, mask, valid = (to_device(tensor, device) for tensor in (self.image, self.mask, self.valid))
        return replace(self, image=image, mask=mask, valid=valid)


@dataclass(frozen=True)
class _PackedMask:
    """A mask with eight pixels in a byte."""

    bits: NDArray[np.uint8]
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> _PackedMask:
        return cls(np.packbits(mask), (mask.shape[0], mask.shape[1]))

    def unpacked(self) -> NDArray[np.bool_]:
        height, width = self.size
        return np.unpackbits(self.bits, count=height * width).view(np.bool_).reshape(height, width)


@dataclass(frozen=True)
class _Resized:
    """What is kept of an image: a quarter of the bytes of its float tensor."""

    rgb: NDArray[np.uint8]  # (h, w, 3)
    mask: NDArray[np.bool_]  # (h, w)
    original_hw: tuple[int, int]
    id: str

    @property
    def nbytes(self) -> int:
        return self.rgb.nbytes + self.mask.nbytes

    def packed(self) -> Tensor:
        """As a row of a store (bytes,): both sizes, colours, and eight pixels of the mask in a byte."""
        sizes = np.array([*self.original_hw, *self.mask.shape], np.int32)
        parts = [sizes.view(np.uint8), self.rgb.ravel(), _PackedMask.of(self.mask).bits]
        return torch.from_numpy(np.concatenate(parts))

    @classmethod
    def unpacked(cls, row: Tensor, row_id: str) -> _Resized:
        """What `packed` gave."""
        content = row.numpy()
        *original, height, width = content[:_SIZES_BYTES].view(np.int32).tolist()
        rgb, bits = np.split(content[_SIZES_BYTES:], [height * width * 3])
        return cls(
            rgb=rgb.reshape(height, width, 3),
            mask=_PackedMask(bits, (height, width)).unpacked(),
            original_hw=(original[0], original[1]),
            id=row_id,
        )


class SegmentationDataset(Dataset[Item]):
    """One split of a data set, resized to a canvas of `canvas_px` and shown as the protocol says.

    Resized images are read from the store of `content` in the folder `stores` if it is there. Else they, and the masks
    at original size in any case, are kept after their first reading until `cache_mib` is full; the rest is read anew
    each time, which with a random order serves better than evicting. Raises DataError if the split is empty."""

    def __init__(
        self,
        store: Store,
        split: Split,
        canvas_px: int,
        *,
        cache_mib: int = 1024,
        protocol: ProtocolConfig = STRICT,
        stores: Path | None = None,
    ) -> None:
        if store.rows(split) == 0:
            counts = ", ".join(f"{name} {store.rows(name)}" for name in SPLITS)
            raise DataError(f"{store.card.path}: no rows in split {split!r} (rows: {counts}); import data that has it")
        self.store = store
        self.split: Split = split
        self.canvas_px = canvas_px
        self.protocol = protocol
        self._free_bytes = cache_mib << 20
        self._cache: dict[int, _Resized] = {}
        self._truths: dict[int, _PackedMask] = {}
        self._ids = store.ids(split)
        self._shared = SharedRows(self.content, stores) if stores else None

    @property
    def content(self) -> Content:
        """All resized images and masks, for a store."""
        return Content(
            key={
                "pixels": self.split,
                "data": self.store.card.digest,
                "order": self.store.order(self.split),
                "canvas_px": self.canvas_px,
                "mask_resize": self.protocol.mask_resize,
            },
            rows=len(self),
            dtype="uint8",
            make=lambda index: self._read(index).packed(),
        )

    def __len__(self) -> int:
        return self.store.rows(self.split)

    def __getitem__(self, index: int) -> Item:
        return self._item(index, self._resized(index))

    def augmented(self, indices: Sequence[int], config: AugmentConfig, rng: np.random.Generator) -> list[Item]:
        """Rows of one image, all under the same random change."""
        kept = [self._resized(index) for index in indices]
        rgb, masks, variant = augment(kept[0].rgb, np.stack([one.mask for one in kept]), config, rng)
        return [
            self._item(index, replace(one, rgb=rgb, mask=mask), variant)
            for index, one, mask in zip(indices, kept, masks, strict=True)
        ]

    def image(self, index: int, variant: int) -> Tensor:
        """The image (3, S, S) of a row, mirrored as `augment` may do."""
        return transforms.normalise_and_pad(mirrored(self._resized(index).rgb, variant), self.canvas_px, self.protocol)

    def _item(self, index: int, kept: _Resized, variant: int = 0) -> Item:
        size = (kept.rgb.shape[0], kept.rgb.shape[1])
        return Item(
            image=transforms.normalise_and_pad(kept.rgb, self.canvas_px, self.protocol),
            mask=transforms.pad_mask(kept.mask, self.canvas_px),
            valid=transforms.valid_mask(size, self.canvas_px),
            original_hw=kept.original_hw,
            resized_hw=size,
            id=kept.id,
            index=index,
            variant=variant,
        )

    def sample(self, index: int) -> Sample:
        """Image and mask at original size, where metrics are taken. Not cached."""
        return self.store.read(self.split, index)

    def truth(self, index: int) -> NDArray[np.bool_]:
        """The mask (H, W) at original size alone, where scores of every epoch are taken."""
        kept = self._truths.get(index)
        if kept is not None:
            return kept.unpacked()
        mask = self.store.truth(self.split, index)
        packed = _PackedMask.of(mask)
        if self._fits(packed.bits.nbytes):
            self._truths[index] = packed
        return mask

    def _fits(self, nbytes: int) -> bool:
        """Takes the bytes from what may still be kept."""
        if nbytes > self._free_bytes:
            return False
        self._free_bytes -= nbytes
        return True

    def _resized(self, index: int) -> _Resized:
        if index in self._cache:
            return self._cache[index]
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} rows in split {self.split!r}")
        row = self._shared.read(index) if self._shared else None
        if row is not None:
            return _Resized.unpacked(row, self._ids[index])
        fresh = self._read(index)
        if self._fits(fresh.nbytes):
            self._cache[index] = fresh
        return fresh

    def _read(self, index: int) -> _Resized:
        sample = self.sample(index)
        return _Resized(
            rgb=transforms.resize_image(sample.image, self.canvas_px),
            mask=transforms.resize_mask(sample.mask, self.canvas_px, self.protocol),
            original_hw=(sample.mask.shape[0], sample.mask.shape[1]),
            id=sample.id,
        )


def collate(items: Sequence[Item]) -> Batch:
    """Stacks items of one canvas size."""
    return Batch(
        image=torch.stack([item.image for item in items]),
        mask=torch.stack([item.mask for item in items]),
        valid=torch.stack([item.valid for item in items]),
        original_hw=[item.original_hw for item in items],
        resized_hw=[item.resized_hw for item in items],
        ids=[item.id for item in items],
        indices=[item.index for item in items],
        variants=[item.variant for item in items],
    )
