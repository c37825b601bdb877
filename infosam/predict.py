"""From an image and, perhaps, a prompt to a mask at the image's own size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from infosam.bundle import read_bundle, restore
from infosam.config import ModelConfig
from infosam.data.pixels import PICTURE_ERRORS
from infosam.data.transforms import prepare_image, resized_hw, restore_logits, to_rgb
from infosam.errors import DataError
from infosam.evaluation import choose_device
from infosam.prompt_files import ImagePrompt, check_inside, to_canvas
from infosam.protocols import PROTOCOLS
from infosam.sam.forward import forward
from infosam.sam.weights import load_base

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


class Predictor:
    """A SAM with one bundle's adapter, or plain SAM, kept in memory."""

    def __init__(self, source: Path | ModelConfig, *, checkpoint: Path | None = None, device: str = "auto") -> None:
        """`source`: a bundle's folder, or the configuration of a plain SAM. `checkpoint`: where the base weights of a
        bundle lie here, for other bases than vit_nano.

        Raises BundleError, BundleMismatch or WeightsError."""
        opened = read_bundle(source) if isinstance(source, Path) else None
        model = opened.model(checkpoint) if opened else source
        assert isinstance(model, ModelConfig)
        base = load_base(model)
        self._protocol = PROTOCOLS[model.protocol]
        self.device = choose_device(device)
        self.canvas_px = base.spec.image_px
        self.card = opened.card if opened else None
        self._sam = (restore(opened, base) if opened else base.sam).to(self.device)

    def predict(self, rgb: NDArray[np.uint8], prompt: ImagePrompt | None = None) -> NDArray[np.bool_]:
        """The mask (H, W) of one image (H, W, 3); without a prompt, of what the adapter was trained to find in it.

        Raises DataError for a prompt outside the image."""
        return self.logits(rgb, prompt) > 0

    @torch.no_grad()
    def logits(self, rgb: NDArray[np.uint8], prompt: ImagePrompt | None = None) -> NDArray[np.float32]:
        """What `predict` cuts at 0: the log odds (H, W) of object against background. Raises as `predict`."""
        size = (rgb.shape[0], rgb.shape[1])
        check_inside(prompt or ImagePrompt(), size, "prompt")
        resized = resized_hw(*size, self.canvas_px)
        image = prepare_image(rgb, self.canvas_px, self._protocol)[None].to(self.device)
        prompts = to_canvas(prompt or ImagePrompt(), size, resized).to(self.device)
        logits = forward(self._sam, image, prompts).logits.cpu()
        restored: NDArray[np.float32] = restore_logits(logits, self.canvas_px, [resized], [size])[0].numpy()
        return restored


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
