"""`infosam predict`: masks and overlay pictures of many images into a folder, with a summary."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from infosam import metrics
from infosam.config import ModelConfig
from infosam.data.card import AUTO, PLAIN
from infosam.data.pixels import Unusable, read_mask
from infosam.data.prompts import box_of
from infosam.errors import DataError, UserError
from infosam.mask_files import WRITERS, MaskFormat
from infosam.overlay import draw_overlay
from infosam.predict import find_images, read_image
from infosam.prompt_files import ImagePrompt, check_inside, match_prompts, read_prompts
from infosam.routing.gather import gather
from infosam.routing.pool import AdapterPool, Segmented

TOGETHER = 4
"""Images that go through the model at once; more gain little and hold more pictures in memory."""
SUMMARY = "summary.csv"


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What the user asked for; see the options of `infosam predict`."""

    bundles: Mapping[str, Path]  # by domain
    domain: str  # one of them for all images, or "auto", or "none" for SAM without adapter
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

    Subfolders of the images are kept where two of them have one name.

    Everything a user gave is checked before the first mask is made. Raises UserError."""
    paths = find_images(request.images)
    names = _names(paths)
    if request.truth is not None and not request.truth.is_dir() and len(paths) > 1:
        raise DataError(f"--truth: {request.truth} is one mask for {len(paths)} images; give a folder of masks")
    sizes = {path: read_image(path).shape[:2] for path in paths}  # reads all of them, so that a broken one stops here
    prompts = _prompts(sizes, names, request)
    pool = _pool(request, console)
    overlays = request.out / "overlays"
    overlays.mkdir(parents=True, exist_ok=True)
    writer = WRITERS[request.form](request.out)
    rows = []
    batches = _segmented(pool, request.domain, paths, prompts)
    for path, rgb, found in track(batches, description="Segmenting", total=len(paths), console=console, transient=True):
        prompt = prompts.get(path, ImagePrompt())
        truth = _truth_of(path, names[path], request.truth, rgb.shape[:2]) if request.truth else None
        writer.add(names[path], found.mask, found.domain)
        overlay = overlays / names[path].with_suffix(".png")
        overlay.parent.mkdir(parents=True, exist_ok=True)
        draw_overlay(rgb, found.mask, truth, prompt.box).save(overlay)
        rows.append(_row(path, found, prompt, truth))
    masks = writer.finish()
    summary = _write_summary(rows, request.out)
    console.print(_table(rows, is_auto=request.domain == AUTO, is_scored=request.truth is not None))
    if request.domain == AUTO:
        console.print(_counted(rows), highlight=False)
    console.print(f"masks: {masks}  overlays: {overlays}  summary: {summary}", highlight=False)


def _pool(request: PredictionRequest, console: Console) -> AdapterPool:
    """All bundles that can be used; where the user named one it has to be usable, with "auto" one must be choosable."""
    if request.domain == PLAIN:
        if not request.bundles:
            return AdapterPool(ModelConfig(checkpoint=request.checkpoint), device=request.device)
        return gather(request.bundles, checkpoint=request.checkpoint, device=request.device).pool
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
    pool: AdapterPool, domain: str, paths: list[Path], prompts: Mapping[Path, ImagePrompt]
) -> Iterator[tuple[Path, NDArray[np.uint8], Segmented]]:
    """Every image (H, W, 3) with what was made of it, in order."""
    asked = None if domain == PLAIN else domain
    for start in range(0, len(paths), TOGETHER):
        some = paths[start : start + TOGETHER]
        images = [read_image(path) for path in some]
        found = pool.predict_batch(images, [prompts.get(path) for path in some], [asked] * len(some))
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


def _names(paths: list[Path]) -> dict[Path, PurePosixPath]:
    """What the files of each image are called, but for their ending: its name, or if two images share one, the path of
    each below the folder that all lie in. Raises DataError for two that differ in the ending only."""
    names = {path: PurePosixPath(path.name) for path in paths}
    if _doubled(names) is not None:
        root = _root(paths)
        names = {path: PurePosixPath(_absolute(path).relative_to(root)) for path in paths}
    doubled = _doubled(names)
    if doubled is not None:
        raise DataError(
            f"several images are called {str(doubled)!r} and their masks would overwrite each other; keep one of them, "
            "or rename"
        )
    return names


def _doubled(names: Mapping[Path, PurePosixPath]) -> PurePosixPath | None:
    counts = Counter(name.with_suffix("") for name in names.values())
    return next((name for name, count in counts.items() if count > 1), None)


def _root(paths: Sequence[Path]) -> Path:
    """The deepest folder that all images lie in."""
    return Path(os.path.commonpath([_absolute(path).parent for path in paths]))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _prompts(
    sizes: Mapping[Path, tuple[int, ...]], names: Mapping[Path, PurePosixPath], request: PredictionRequest
) -> dict[Path, ImagePrompt]:
    """Prompts by image, checked against the images of given (H, W); boxes around the truth where that is given."""
    if request.truth is not None:
        found = {}
        for path, size in sizes.items():
            truth = torch.from_numpy(_truth_of(path, names[path], request.truth, size))
            if truth.any():
                x0, y0, x1, y1 = box_of(truth).tolist()
                found[path] = ImagePrompt(box=(x0, y0, x1, y1))
        return found
    if request.prompts is None:
        return {}
    root = _root(list(sizes))
    paths = {_absolute(path).relative_to(root).as_posix(): path for path in sizes}
    file = str(request.prompts)
    matched = match_prompts(read_prompts(request.prompts), list(paths), file, root=root.as_posix())
    for name, prompt in matched.items():
        height, width = sizes[paths[name]][:2]
        check_inside(prompt, (height, width), f"{file}: {name}")
    return {paths[name]: prompt for name, prompt in matched.items()}


def _truth_of(image: Path, name: PurePosixPath, truth: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The true mask of an image of (H, W): the file itself, or the one of the image's `name` in a folder, whatever its
    ending. Raises DataError."""
    file = truth
    if truth.is_dir():
        folder = truth / name.parent
        matches = sorted(path for path in folder.iterdir() if path.stem == name.stem) if folder.is_dir() else []
        if not matches:
            raise DataError(f"--truth: no mask called {name.stem}.* in {folder}")
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
