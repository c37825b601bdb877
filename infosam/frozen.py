"""What a frozen encoder makes of the images of a split: computed once per image, then remembered or read from disk.

An encoding is a function of the weights, the image and the type it is kept in, never of a run: always computed in
float32, one image at a time (in a batch the last bits depend on who else is in it), and rounded to the type it is kept
in before its first use too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from infosam.config import StoredType
from infosam.data.dataset import Batch, SegmentationDataset
from infosam.sam.encoder import encode, enter_block
from infosam.sam.weights import BaseSam
from infosam.tensor_store import (
    TORCH_TYPES,
    StoreDamaged,
    TensorStore,
    build_store,
    open_store,
    set_aside,
    store_path,
)

MEMORY_MIB = 2048
"""Most that one encoder's encodings take in the memory of a process; the rest is computed anew each time."""


class FrozenEncodings:
    """Encodings of one split by one frozen SAM.

    Args:
        stores: folder of the stores that `build` makes; None: memory only.
    """

    def __init__(
        self, base: BaseSam, dataset: SegmentationDataset, device: torch.device, stores: Path | None = None
    ) -> None:
        self._base = base
        self._dataset = dataset
        self._device = device
        self._folder = stores
        self._memory: dict[tuple[int | None, StoredType, int], Tensor] = {}
        self._free_bytes = MEMORY_MIB << 20
        self._opened: dict[tuple[int | None, StoredType], TensorStore | None] = {}

    def of(self, batch: Batch, *, block: int | None, dtype: StoredType, remember: bool = True) -> Tensor:
        """Image embeddings (B, D, h, w) of a batch, or with `block` the inputs (B, h, w, C) of that block; float32.

        `remember` False is for images that are not those of the data set, as after augmentation."""
        rows = []
        for image, index in zip(batch.image, batch.indices, strict=True):
            row = self._known(block, dtype, index) if remember else None
            if row is None:
                row = self._encode(image, block).to(TORCH_TYPES[dtype])
                if remember:
                    self._keep(block, dtype, index, row)
            rows.append(row.to(self._device, torch.float32))
        return torch.stack(rows)

    def build(self, *, block: int | None, dtype: StoredType, limit_bytes: int | None = None) -> Path:
        """Writes the store of all images of the split, unless a sound one is there; returns its file.

        Raises StoreFull where disk or limit do not suffice."""
        path = self._path(block, dtype)
        try:
            known = open_store(path, rows=len(self._dataset))
            if known is not None:
                known.verify()
        except StoreDamaged:
            set_aside(path)
        build_store(path, self._all(block), dtype=dtype, limit_bytes=limit_bytes)
        self._opened.pop((block, dtype), None)
        return path

    def _all(self, block: int | None) -> Iterator[Tensor]:
        for index in range(len(self._dataset)):
            yield self._encode(self._dataset[index].image, block)

    def _known(self, block: int | None, dtype: StoredType, index: int) -> Tensor | None:
        kept = self._memory.get((block, dtype, index))
        if kept is not None:
            return kept
        store = self._store(block, dtype)
        if store is None:
            return None
        try:
            return store.read(index)
        except StoreDamaged as damage:
            self._give_up(block, dtype, damage)
            return None

    def _keep(self, block: int | None, dtype: StoredType, index: int, row: Tensor) -> None:
        if row.nbytes <= self._free_bytes:
            self._free_bytes -= row.nbytes
            self._memory[block, dtype, index] = row

    def _store(self, block: int | None, dtype: StoredType) -> TensorStore | None:
        if self._folder is None:
            return None
        if (block, dtype) not in self._opened:
            try:
                self._opened[block, dtype] = open_store(self._path(block, dtype), rows=len(self._dataset))
            except StoreDamaged as damage:
                self._give_up(block, dtype, damage)
        return self._opened[block, dtype]

    def _give_up(self, block: int | None, dtype: StoredType, damage: StoreDamaged) -> None:
        """A damaged store must not cost a run: what it held is computed, and the next sweep builds it again."""
        warnings.warn(f"{damage}; its encodings are computed instead", stacklevel=2)
        self._opened[block, dtype] = None
        set_aside(self._path(block, dtype))

    def _path(self, block: int | None, dtype: StoredType) -> Path:
        if self._folder is None:
            raise ValueError("these encodings have no folder of stores")
        key = {
            "weights": self._base.sha256,
            "data": self._dataset.store.card.digest,
            "split": self._dataset.split,
            "canvas_px": self._dataset.canvas_px,
            "protocol": self._dataset.protocol.model_dump(mode="json"),
            "block": block,
            "type": dtype,
        }
        return store_path(self._folder, key)

    @torch.no_grad()
    def _encode(self, image: Tensor, block: int | None) -> Tensor:
        encoder = self._base.sam.image_encoder
        with torch.autocast(self._device.type, enabled=False):
            one = image[None].to(self._device)
            encoded = encode(encoder, one) if block is None else enter_block(encoder, one, block)
        return encoded[0]
