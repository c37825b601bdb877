"""What a frozen encoder makes of the images of a split: computed once per image, then remembered or read from disk.

An encoding is a function of the weights, the image and the type it is kept in, never of a run: always computed in
float32, one image at a time (in a batch the last bits depend on who else is in it), and rounded to the type it is kept
in before its first use too.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from infosam.config import StoredType
from infosam.data.dataset import Batch, SegmentationDataset
from infosam.device_values import to_device
from infosam.sam.encoder import encode, enter_block
from infosam.sam.weights import BaseSam
from infosam.stored import Content, SharedRows
from infosam.tensor_store import TORCH_TYPES

MEMORY_MIB = 2048
"""Most that one encoder's encodings take in the memory of a process; the rest is computed anew each time."""


class Kind(NamedTuple):
    """What rows have in common."""

    block: int | None
    dtype: StoredType
    variants: int  # rows of each image


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
        self._memory: dict[tuple[Kind, int], Tensor] = {}
        self._free_bytes = MEMORY_MIB << 20
        self._shared: dict[Kind, SharedRows] = {}

    def of(self, batch: Batch, *, block: int | None, dtype: StoredType, variants: int | None = 1) -> Tensor:
        """Image embeddings (B, D, h, w) of a batch, or with `block` the inputs (B, h, w, C) of that block; float32.

        `variants` says how many pictures an image of the data set can be here (`AugmentConfig.variants`). None is for
        pictures without number, which are not remembered."""
        kind = None if variants is None else Kind(block, dtype, variants)
        rows = []
        for image, index, variant in zip(batch.image, batch.indices, batch.variants, strict=True):
            number = index * (variants or 1) + variant
            row = None if kind is None else self._known(kind, number)
            if row is None:
                row = self._encode(image, block).to("cpu", TORCH_TYPES[dtype])
                if kind is not None:
                    self._keep(kind, number, row)
            rows.append(row)
        with torch.autocast(self._device.type, enabled=False):  # which would not stack halves
            return to_device(torch.stack(rows), self._device).float()

    def content(self, *, block: int | None, dtype: StoredType, variants: int = 1) -> Content:
        """All encodings of one kind, for a store: `variants` rows for each image."""
        own = {"variants": variants} if variants > 1 else {}
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
                **own,
            },
            rows=len(self._dataset) * variants,
            dtype=dtype,
            make=lambda number: self._encode(self._dataset.image(*divmod(number, variants)), block),
        )

    def _known(self, kind: Kind, number: int) -> Tensor | None:
        kept = self._memory.get((kind, number))
        if kept is not None or self._folder is None:
            return kept
        if kind not in self._shared:
            self._shared[kind] = SharedRows(self.content(**kind._asdict()), self._folder)
        return self._shared[kind].read(number)

    def _keep(self, kind: Kind, number: int, row: Tensor) -> None:
        """In the processor's memory also where a GPU computes: there it would be room that trials need."""
        if row.nbytes <= self._free_bytes:
            self._free_bytes -= row.nbytes
            self._memory[kind, number] = row

    @torch.no_grad()
    def _encode(self, image: Tensor, block: int | None) -> Tensor:
        encoder = self._base.sam.image_encoder
        with torch.autocast(self._device.type, enabled=False):
            one = image[None].to(self._device)
            encoded = encode(encoder, one) if block is None else enter_block(encoder, one, block)
        return encoded[0]
