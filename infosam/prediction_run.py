"""`infosam predict`: masks and overlay pictures of many images into a folder, with a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from infosam import metrics
from infosam.data.pixels import Unusable, read_mask
from infosam.data.prompts import box_of
from infosam.errors import DataError
from infosam.overlay import draw_overlay
from infosam.predict import Predictor, find_images, read_image
from infosam.prompt_files import ImagePrompt, check_inside, read_prompts

TOGETHER = 4
"""Images that go through the model at once; more gain little and hold more pictures in memory."""


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What the user asked for; see the options of `infosam predict`."""

    bundle: Path
    images: list[Path]
    out: Path
    prompts: Path | None = None
    truth: Path | None = None
    checkpoint: Path | None = None
    device: str = "auto"


def run_prediction(request: PredictionRequest, console: Console) -> None:
    """Writes OUT/masks/NAME.png (0 and 255) and OUT/overlays/NAME.png, and prints a table.

    Everything a user gave is checked before the first mask is made. Raises UserError."""
    paths = find_images(request.images)
    _check_names(paths)
    if request.truth is not None and not request.truth.is_dir() and len(paths) > 1:
        raise DataError(f"--truth: {request.truth} is one mask for {len(paths)} images; give a folder of masks")
    sizes = {path: read_image(path).shape[:2] for path in paths}  # reads all of them, so that a broken one stops here
    prompts = _prompts(sizes, request)
    predictor = Predictor(request.bundle, checkpoint=request.checkpoint, device=request.device)
    for folder in ("masks", "overlays"):
        (request.out / folder).mkdir(parents=True, exist_ok=True)
    table = Table("image", "prompt")
    table.add_column("area", justify="right")
    for heading in ("IoU", "Dice") if request.truth else ():
        table.add_column(heading, justify="right")
    batches = _masks(predictor, paths, prompts)
    for path, rgb, mask in track(batches, description="Segmenting", total=len(paths), console=console, transient=True):
        prompt = prompts.get(path.name, ImagePrompt())
        truth = _truth_of(path, request.truth, rgb.shape[:2]) if request.truth else None
        Image.fromarray((mask * np.uint8(255)).astype(np.uint8)).save(request.out / "masks" / f"{path.stem}.png")
        overlay = draw_overlay(rgb, mask, truth, prompt.box)
        overlay.save(request.out / "overlays" / f"{path.stem}.png")
        table.add_row(path.name, _describe(prompt), f"{mask.mean():.1%}", *_scores(mask, truth))
    console.print(table)
    console.print(f"masks: {request.out / 'masks'}  overlays: {request.out / 'overlays'}", highlight=False)


def _masks(
    predictor: Predictor, paths: list[Path], prompts: Mapping[str, ImagePrompt]
) -> Iterator[tuple[Path, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Every image (H, W, 3) with its mask (H, W), in order."""
    for start in range(0, len(paths), TOGETHER):
        some = paths[start : start + TOGETHER]
        images = [read_image(path) for path in some]
        masks = predictor.predict_batch(images, [prompts.get(path.name) for path in some])
        yield from zip(some, images, masks, strict=True)


def _check_names(paths: list[Path]) -> None:
    doubled = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if doubled:
        raise DataError(
            f"several images are called {doubled[0]!r} and their masks would overwrite each other; "
            "run them one folder at a time"
        )


def _prompts(sizes: Mapping[Path, tuple[int, ...]], request: PredictionRequest) -> dict[str, ImagePrompt]:
    """Prompts by file name, checked against the images of given (H, W); boxes around the truth where that is given."""
    if request.truth is not None:
        found = {}
        for path, size in sizes.items():
            truth = torch.from_numpy(_truth_of(path, request.truth, size))
            if truth.any():
                x0, y0, x1, y1 = box_of(truth).tolist()
                found[path.name] = ImagePrompt(box=(x0, y0, x1, y1))
        return found
    if request.prompts is None:
        return {}
    prompts = read_prompts(request.prompts)
    unknown = sorted(set(prompts) - {path.name for path in sizes})
    if unknown:
        raise DataError(f"{request.prompts}: has a prompt for {unknown[0]!r}, which is not among the images")
    for path, size in sizes.items():
        if path.name in prompts:
            check_inside(prompts[path.name], (size[0], size[1]), f"{request.prompts}: {path.name}")
    return prompts


def _truth_of(image: Path, truth: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The true mask of an image of (H, W): the file itself, or the one with the same stem in a folder.

    Raises DataError."""
    file = truth
    if truth.is_dir():
        matches = sorted(path for path in truth.iterdir() if path.stem == image.stem)
        if not matches:
            raise DataError(f"--truth: no mask called {image.stem}.* in {truth}")
        file = matches[0]
    try:
        mask = read_mask(file)
    except Unusable as problem:
        raise DataError(f"--truth: {problem}") from problem
    if mask.shape != size:
        raise DataError(f"--truth: {file} is {mask.shape[1]} x {mask.shape[0]} px, {image} is {size[1]} x {size[0]} px")
    return mask


def _describe(prompt: ImagePrompt) -> str:
    parts = ["box"] if prompt.box is not None else []
    parts += [f"{len(prompt.points)} points"] if prompt.points else []
    return " + ".join(parts) or "none"


def _scores(mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None) -> list[str]:
    if truth is None:
        return []
    predicted, actual = torch.from_numpy(mask), torch.from_numpy(truth)
    return [f"{metrics.iou(predicted, actual):.4f}", f"{metrics.dice(predicted, actual):.4f}"]
