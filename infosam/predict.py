"""From an image and, perhaps, a prompt to a mask at the image's own size."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from infosam.bundle import read_bundle, restore
from infosam.config import ModelConfig
from infosam.data.pixels import PICTURE_ERRORS
from infosam.data.prompts import Prompts
from infosam.data.transforms import prepare_image, resized_hw, restore_logits, to_rgb
from infosam.errors import DataError
from infosam.evaluation import choose_device
from infosam.prompt_files import ImagePrompt, check_inside, to_canvas
from infosam.protocols import PROTOCOLS, STRICT
from infosam.sam.encoder import encode
from infosam.sam.forward import decode
from infosam.sam.weights import BaseSam, load_base

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


class Predictor:
    """A SAM with one bundle's adapter, or plain SAM, kept in memory."""

    def __init__(
        self, source: Path | ModelConfig | BaseSam, *, checkpoint: Path | None = None, device: str = "auto"
    ) -> None:
        """`source`: a bundle's folder, the configuration of a plain SAM, or a plain SAM that is loaded. `checkpoint`:
        where the base weights of a bundle lie here, for other bases than vit_nano.

        Raises BundleError, BundleMismatch or WeightsError."""
        opened = read_bundle(source) if isinstance(source, Path) else None
        model = opened.model(checkpoint) if opened else source
        base = load_base(model) if isinstance(model, ModelConfig) else model
        assert isinstance(base, BaseSam)
        self._protocol = PROTOCOLS[model.protocol] if isinstance(model, ModelConfig) else STRICT
        self.device = choose_device(device)
        self.canvas_px = base.spec.image_px
        self.card = opened.card if opened else None
        self._sam = (restore(opened, base) if opened else base.sam).to(self.device)

    def predict(self, rgb: NDArray[np.uint8], prompt: ImagePrompt | None = None) -> NDArray[np.bool_]:
        """The mask (H, W) of one image (H, W, 3); without a prompt, of what the adapter was trained to find in it.

        Raises DataError for a prompt outside the image."""
        return self.logits(rgb, prompt) > 0

    def predict_batch(
        self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[ImagePrompt | None] | None = None
    ) -> list[NDArray[np.bool_]]:
        """As `predict`, for images of any sizes that go through the model together; a prompt for each, or none.

        Equal to one by one but for the last bits of the odds. Raises as `predict`, with the image's number."""
        return [logits > 0 for logits in self._restored(images, prompts)]

    def logits(self, rgb: NDArray[np.uint8], prompt: ImagePrompt | None = None) -> NDArray[np.float32]:
        """What `predict` cuts at 0: the log odds (H, W) of object against background. Raises as `predict`."""
        return next(self._restored([rgb], [prompt]))

    @torch.no_grad()
    def _restored(
        self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[ImagePrompt | None] | None
    ) -> Iterator[NDArray[np.float32]]:
        """Log odds of each image at its own size, made one after the other: they can be far larger than a canvas."""
        if not images:
            return
        given = [prompt or ImagePrompt() for prompt in prompts or [None] * len(images)]
        sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in images]
        for number, (prompt, size) in enumerate(zip(given, sizes, strict=True)):
            check_inside(prompt, size, "prompt" if len(images) == 1 else f"prompt of image {number}")
        resized = [resized_hw(*size, self.canvas_px) for size in sizes]
        seen = [prepare_image(rgb, self.canvas_px, self._protocol) for rgb in images]
        embeddings = encode(self._sam.image_encoder, torch.stack(seen).to(self.device))
        placed = [to_canvas(*each) for each in zip(given, sizes, resized, strict=True)]
        for logits, shown, size in zip(self._decoded(embeddings, placed), resized, sizes, strict=True):
            yield restore_logits(logits[None], self.canvas_px, [shown], [size])[0].numpy()

    def _decoded(self, embeddings: Tensor, prompts: Sequence[Prompts]) -> Tensor:
        """Logits (B, 1, h, w) on the CPU. Prompts of equal length are decoded together: padding would be attended to,
        so a mask would depend on its neighbours' prompts."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for row, prompt in enumerate(prompts):
            by_length[prompt.labels.shape[1]].append(row)
        parts = []
        for rows in by_length.values():
            together = Prompts(
                points=torch.cat([prompts[row].points for row in rows]),
                labels=torch.cat([prompts[row].labels for row in rows]),
            )
            parts.append(decode(self._sam, embeddings[rows], together.to(self.device)).logits.cpu())
        order = torch.tensor([row for rows in by_length.values() for row in rows])
        return torch.cat(parts)[order.argsort()]


def find_images(sources: list[Path]) -> list[Path]:
    """Picture files named, or found directly in folders, sorted. Raises DataError for a missing path or no picture."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            found += sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        elif source.is_file():
            found.append(source)
        else:
            raise DataError(f"{source}: no such image or folder")
    if not found:
        raise DataError(f"no images in {', '.join(map(str, sources))}; known endings: {', '.join(IMAGE_SUFFIXES)}")
    return found


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. Raises DataError for a file that is no readable picture."""
    return _decoded(path, str(path))


def decode_image(content: bytes, where: str) -> NDArray[np.uint8]:
    """As `read_image`, of a file's content; `where` names it in the error."""
    return _decoded(io.BytesIO(content), where)


def _decoded(source: Path | IO[bytes], where: str) -> NDArray[np.uint8]:
    try:
        with Image.open(source) as image:
            return to_rgb(image)
    except PICTURE_ERRORS as error:
        raise DataError(f"{where}: cannot be read as an image: {error}") from error
