"""From an image and, perhaps, a prompt to a mask at the image's own size."""

from __future__ import annotations

import glob
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from infosam.bundle import read_bundle, restore
from infosam.config import ModelConfig
from infosam.data.pixels import FORMATS, PICTURE_ERRORS, open_picture_file
from infosam.data.rgb import to_rgb
from infosam.data.transforms import prepare_image
from infosam.decoding import at_own_size, decode_placed, place
from infosam.errors import DataError
from infosam.evaluation import choose_device
from infosam.prompt_files import ImagePrompt
from infosam.protocols import PROTOCOLS, STRICT
from infosam.sam.encoder import encode
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
        if not images:
            return
        placed = place(images, prompts, self.canvas_px)
        seen = [prepare_image(rgb, self.canvas_px, self._protocol) for rgb in images]
        embeddings = encode(self._sam.image_encoder, torch.stack(seen).to(self.device))
        yield from at_own_size(decode_placed(self._sam, embeddings, placed), placed, self.canvas_px)


def find_images(sources: list[Path]) -> list[Path]:
    """Picture files named, matched by a pattern such as `photos/**/*.png`, or found directly in folders, sorted; each
    once. Raises DataError for a missing path or no picture."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            found += sorted(path for path in source.iterdir() if _is_picture(path))
        elif source.is_file():
            found.append(source)
        elif glob.has_magic(str(source)):
            matches = (Path(match) for match in glob.glob(str(source), recursive=True))
            found += sorted(path for path in matches if _is_picture(path) and path.is_file())
        else:
            raise DataError(f"{source}: no such image or folder")
    if not found:
        raise DataError(f"no images in {', '.join(map(str, sources))}; known endings: {', '.join(IMAGE_SUFFIXES)}")
    return list(dict.fromkeys(found))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. Raises DataError for a file that is no readable picture."""
    return _decoded(path, str(path))


def decode_image(content: bytes, where: str) -> NDArray[np.uint8]:
    """As `read_image`, of a file's content; `where` names it in the error."""
    return _decoded(io.BytesIO(content), where)


def _decoded(source: Path | IO[bytes], where: str) -> NDArray[np.uint8]:
    try:
        with open_picture_file(source) as image:
            return to_rgb(image)
    except UnidentifiedImageError as error:  # its own words name an object in memory
        raise DataError(f"{where}: cannot be read as an image: its content is none of {', '.join(FORMATS)}") from error
    except PICTURE_ERRORS as error:
        raise DataError(f"{where}: cannot be read as an image: {error}") from error
