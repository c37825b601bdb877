"""What a frozen encoder makes of the images of a split: computed once per image, then remembered or read from disk.

An encoding is a function of the weights, the image and the type it is kept in, never of a run: always computed in
float32, one image at a time (in a batch the last bits depend on who else is in it), and rounded to the type it is kept
in before its first use too.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from infosam.config import StoredType
from infosam.data.dataset import Batch, SegmentationDataset
from infosam.sam.encoder import encode, enter_block
from infosam.sam.weights import BaseSam
from infosam.stored import Content, SharedRows
from infosam.tensor_store import TORCH_TYPES

MEMORY_MIB = 2048
"""Most that one encoder's encodings take in the memory of a process; the rest is computed anew each time."""


class FrozenEncodings:
    """Encodings of one split by one frozen SAM.

    Args:
        stores: folder with stores of a `content`, which are read where they are; None: memory only.
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
        self._shared: dict[tuple[int | None, StoredType], SharedRows] = {}

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

    def content(self, *, block: int | None, dtype: StoredType) -> Content:
        """All encodings of one kind, for a store."""
        return Content(
            key={
                "weights": self._base.sha256,
                "data": self._dataset.store.card.digest,
                "order": self._dataset.store.order(self._dataset.split),
                "split": self._dataset.split,
                "canvas_px": self._dataset.canvas_px,
                "protocol": self._dataset.protocol.model_dump(mode="json"),
                "block": block,
                "type": dtype,
            },
            rows=len(self._dataset),
            dtype=dtype,
            make=lambda index: self._encode(self._dataset[index].image, block),
        )

    def _known(self, block: int | None, dtype: StoredType, index: int) -> Tensor | None:
        kept = self._memory.get((block, dtype, index))
        if kept is not None or self._folder is None:
            return kept
        if (block, dtype) not in self._shared:
            self._shared[block, dtype] = SharedRows(self.content(block=block, dtype=dtype), self._folder)
        return self._shared[block, dtype].read(index)

    def _keep(self, block: int | None, dtype: StoredType, index: int, row: Tensor) -> None:
        if row.nbytes <= self._free_bytes:
            self._free_bytes -= row.nbytes
            self._memory[block, dtype, index] = row

    @torch.no_grad()
    def _encode(self, image: Tensor, block: int | None) -> Tensor:
        encoder = self._base.sam.image_encoder
        with torch.autocast(self._device.type, enabled=False):
            one = image[None].to(self._device)
            encoded = encode(encoder, one) if block is None else enter_block(encoder, one, block)
        return encoded[0]
