"""`infosam predict`: masks and overlay pictures of many images into a folder, with a summary."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from infosam import metrics
from infosam.data.card import AUTO
from infosam.data.pixels import Unusable, read_mask
from infosam.data.prompts import box_of
from infosam.errors import DataError, UserError
from infosam.mask_files import WRITERS, MaskFormat
from infosam.overlay import draw_overlay
from infosam.predict import find_images, read_image
from infosam.prompt_files import ImagePrompt, check_inside, read_prompts
from infosam.routing.gather import gather
from infosam.routing.pool import AdapterPool, Segmented

TOGETHER = 4
"""Images that go through the model at once; more gain little and hold more pictures in memory."""
SUMMARY = "summary.csv"


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What the user asked for; see the options of `infosam predict`."""

    bundles: Mapping[str, Path]  # by domain
    domain: str  # one of them for all images, or "auto"
    images: list[Path]
    out: Path
    form: MaskFormat = "png"
    problems: Sequence[str] = ()  # with bundles that are left out
    prompts: Path | None = None
    truth: Path | None = None
    checkpoint: Path | None = None
    device: str = "auto"


def run_prediction(request: PredictionRequest, console: Console) -> None:
    """Writes the masks (`infosam.mask_files`), OUT/overlays/NAME.png and OUT/summary.csv, and prints a table.

    Everything a user gave is checked before the first mask is made. Raises UserError."""
    paths = find_images(request.images)
    _check_names(paths)
    if request.truth is not None and not request.truth.is_dir() and len(paths) > 1:
        raise DataError(f"--truth: {request.truth} is one mask for {len(paths)} images; give a folder of masks")
    sizes = {path: read_image(path).shape[:2] for path in paths}  # reads all of them, so that a broken one stops here
    prompts = _prompts(sizes, request)
    pool = _pool(request, console)
    overlays = request.out / "overlays"
    overlays.mkdir(parents=True, exist_ok=True)
    writer = WRITERS[request.form](request.out)
    rows = []
    batches = _segmented(pool, request.domain, paths, prompts)
    for path, rgb, found in track(batches, description="Segmenting", total=len(paths), console=console, transient=True):
        prompt = prompts.get(path.name, ImagePrompt())
        truth = _truth_of(path, request.truth, rgb.shape[:2]) if request.truth else None
        writer.add(path, found.mask, found.domain)
        draw_overlay(rgb, found.mask, truth, prompt.box).save(overlays / f"{path.stem}.png")
        rows.append(_row(path, found, prompt, truth))
    masks = writer.finish()
    summary = _write_summary(rows, request.out)
    console.print(_table(rows, is_auto=request.domain == AUTO, is_scored=request.truth is not None))
    if request.domain == AUTO:
        console.print(_counted(rows), highlight=False)
    console.print(f"masks: {masks}  overlays: {overlays}  summary: {summary}", highlight=False)


def _pool(request: PredictionRequest, console: Console) -> AdapterPool:
    """All bundles that can be used; where the user named one it has to be usable, with "auto" one must be choosable."""
    if request.domain != AUTO:
        return AdapterPool.from_folders(request.bundles, checkpoint=request.checkpoint, device=request.device)
    _warn(request.problems, console)
    gathered = gather(request.bundles, checkpoint=request.checkpoint, device=request.device)
    if not gathered.pool.routable():
        raise UserError("\n  ".join(["no adapter here can be chosen automatically:", *gathered.problems]))
    _warn(gathered.problems, console)
    return gathered.pool


def _warn(problems: Sequence[str], console: Console) -> None:
    for problem in problems:
        console.print(Text("warning: ", style="yellow") + Text(problem), soft_wrap=True)


def _segmented(
    pool: AdapterPool, domain: str, paths: list[Path], prompts: Mapping[str, ImagePrompt]
) -> Iterator[tuple[Path, NDArray[np.uint8], Segmented]]:
    """Every image (H, W, 3) with what was made of it, in order."""
    for start in range(0, len(paths), TOGETHER):
        some = paths[start : start + TOGETHER]
        images = [read_image(path) for path in some]
        found = pool.predict_batch(images, [prompts.get(path.name) for path in some], [domain] * len(some))
        yield from zip(some, images, found, strict=True)


@dataclass(frozen=True)
class _Row:
    """One image in the summary; numbers as they are written."""

    image: Path
    domain: str
    score: str
    threshold: str
    reason: str
    prompt: str
    area: str  # share of the image
    iou: str
    dice: str


def _row(path: Path, found: Segmented, prompt: ImagePrompt, truth: NDArray[np.bool_] | None) -> _Row:
    iou = dice = ""
    if truth is not None:
        predicted, actual = torch.from_numpy(found.mask), torch.from_numpy(truth)
        iou, dice = f"{metrics.iou(predicted, actual):.4f}", f"{metrics.dice(predicted, actual):.4f}"
    score, threshold = ("" if one is None else f"{one:.4f}" for one in (found.score, found.threshold))
    area = f"{found.mask.mean():.6f}"
    return _Row(path, found.domain or "", score, threshold, found.reason, _describe(prompt), area, iou, dice)


def _write_summary(rows: Sequence[_Row], out: Path) -> Path:
    stream = io.StringIO()
    names = ("image", "domain", "score", "threshold", "reason", "prompt", "area", "iou", "dice")
    csv.writer(stream, lineterminator="\n").writerows(
        [names, *([getattr(row, name) for name in names] for row in rows)]
    )
    part = out / f"{SUMMARY}.part"
    part.write_text(stream.getvalue(), encoding="utf-8")
    return part.replace(out / SUMMARY)


def _table(rows: Sequence[_Row], *, is_auto: bool, is_scored: bool) -> Table:
    table = Table("image", *(("domain", "score / limit") if is_auto else ()), "prompt")
    table.add_column("area", justify="right")
    for heading in ("IoU", "Dice") if is_scored else ():
        table.add_column(heading, justify="right")
    for row in rows:
        chosen = (row.domain or "none", f"{row.score or '-'} / {row.threshold or '-'}") if is_auto else ()
        scores = (row.iou, row.dice) if is_scored else ()
        table.add_row(row.image.name, *chosen, row.prompt, f"{float(row.area):.1%}", *scores)
    return table


def _counted(rows: Sequence[_Row]) -> str:
    chosen = Counter(row.domain for row in rows if row.domain)
    parts = [f"{domain} {count}" for domain, count in sorted(chosen.items())]
    abstained = len(rows) - chosen.total()
    return ", ".join([*parts, f"of no known domain, so by SAM without adapter: {abstained}"])


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
