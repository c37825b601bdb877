"""Prompts of a user's images from a JSON or CSV file, in pixels of the original image.

JSON: {"a.jpg": {"box": [x0, y0, x1, y1]}, "b.jpg": {"points": [[x, y, 1], [x, y, 0]]}}; the last number of a point
is 1 for object and 0 for background. CSV: columns image,x0,y0,x1,y1 for boxes, image,x,y,label for points, or all of
them; a row for the box and for each point, or both in one. An image is named by as much of the end of its path as tells
it from the others: a.jpg, or x/a.jpg where y/a.jpg is there as well.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from infosam.data.prompts import Prompts
from infosam.errors import DataError

BOX_COLUMNS = ("x0", "y0", "x1", "y1")
POINT_COLUMNS = ("x", "y", "label")
POINTS_COLUMN = "points"
"""Of a table for MLflow: JSON, a list of [x, y, label]."""


@dataclass(frozen=True)
class ImagePrompt:
    """What a user says about one image: a box, points, both, or nothing."""

    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1: first and last column and row
    points: tuple[tuple[float, float, int], ...] = ()  # x, y, and 1 for object or 0 for background


def read_prompts(path: Path) -> dict[str, ImagePrompt]:
    """Prompts by what the file calls their images; `match_prompts` says which those are.

    Raises DataError naming the row or image that is wrong."""
    if not path.is_file():
        raise DataError(f"--prompts: no such file: {path}")
    if path.suffix.lower() == ".csv":
        return _from_csv(path)
    if path.suffix.lower() == ".json":
        return _from_json(path)
    raise DataError(f"--prompts: {path} must end in .json or .csv")


def _from_csv(path: Path) -> dict[str, ImagePrompt]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            rows = [(f"{path}:{reader.line_num}", row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8: {error}") from error
    forms: list[Sequence[str]] = [POINT_COLUMNS] if "label" in columns else []
    if not forms or not set(columns).isdisjoint(BOX_COLUMNS):
        forms.insert(0, BOX_COLUMNS)
    missing = [name for name in ("image", *(name for form in forms for name in form)) if name not in columns]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(columns) or 'none'}")
    parts: dict[str, list[ImagePrompt]] = defaultdict(list)
    for where, row in rows:
        parts[_named(row["image"], path)].append(_of_cells(row, forms, where))
    return {name: _joined(some, f"{path}: {name}") for name, some in parts.items()}


def _of_cells(row: Mapping[str, str | None], forms: Sequence[Sequence[str]], where: str) -> ImagePrompt:
    """The box and the point of a row; cells may be empty where the table has columns for both."""
    given = [form for form in forms if any((row[name] or "").strip() for name in form)]
    if not given:
        given = list(forms[:1])  # which refuses the empty cells
    box = _box([row[name] for name in BOX_COLUMNS], where) if BOX_COLUMNS in given else None
    points = (_point([row[name] for name in POINT_COLUMNS], where),) if POINT_COLUMNS in given else ()
    return ImagePrompt(box=box, points=points)


def _joined(parts: Sequence[ImagePrompt], where: str) -> ImagePrompt:
    """What several rows say about one image. Raises DataError for two boxes."""
    boxes = [part.box for part in parts if part.box is not None]
    if len(boxes) > 1:
        raise DataError(f"{where}: has two boxes; an image has one")
    points = tuple(point for part in parts for point in part.points)
    return ImagePrompt(box=boxes[0] if boxes else None, points=points)


def _from_json(path: Path) -> dict[str, ImagePrompt]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping of image names to prompts, found {type(content).__name__}")
    return {_named(name, path): parse_prompt(entry, f"{path}: {name}") for name, entry in content.items()}


def _named(given: str | None, path: Path) -> str:
    if not PurePosixPath(given or "").name:
        raise DataError(f"{path}: a prompt names no image")
    return str(given)


def match_prompts(
    prompts: Mapping[str, ImagePrompt], names: Sequence[str], file: str, *, root: str = ""
) -> dict[str, ImagePrompt]:
    """Prompts by the name of their image; `file` is where they stand.

    `names` are paths below `root`. A prompt means the image of just its name, else the only one whose path, `root`
    included, ends with it. Raises DataError for a prompt of no image or of several, and for two of one image."""
    last: dict[str, list[str]] = defaultdict(list)
    for name in names:
        last[PurePosixPath(name).name].append(name)
    known = set(names)
    found: dict[str, ImagePrompt] = {}
    meant: dict[str, str] = {}
    for given, prompt in prompts.items():
        ending = PurePosixPath(given).parts
        if str(PurePosixPath(given)) in known:
            fitting = [str(PurePosixPath(given))]
        else:
            fitting = [name for name in last[ending[-1]] if PurePosixPath(root, name).parts[-len(ending) :] == ending]
        if not fitting:
            raise DataError(f"{file}: has a prompt for {given!r}, which is not among the images")
        if len(fitting) > 1:
            raise DataError(
                f"{file}: the prompt for {given!r} may mean {fitting[0]} or {fitting[1]}; name more of the path"
            )
        (name,) = fitting
        if name in found:
            raise DataError(f"{file}: has two prompts for {name}: {meant[name]!r} and {given!r}; an image has one")
        found[name], meant[name] = prompt, given
    return found


def parse_prompt(entry: Any, where: str) -> ImagePrompt:
    """A prompt from what JSON gives for it. Raises DataError that begins with `where`."""
    if not isinstance(entry, Mapping) or not entry.keys() <= {"box", "points"}:
        raise DataError(f'{where}: expected {{"box": [...]}} and / or {{"points": [...]}}, found {entry!r}')
    box = _box(entry["box"], where) if "box" in entry else None
    points = entry.get("points", [])
    if not isinstance(points, list):
        raise DataError(f"{where}: points is a list of [x, y, label], found {points!r}")
    return ImagePrompt(box=box, points=tuple(_point(point, where) for point in points))


def _box(values: Any, where: str) -> tuple[float, float, float, float]:
    numbers = _numbers(values, 4, where, "a box is x0, y0, x1, y1")
    x0, y0, x1, y1 = numbers
    if x1 < x0 or y1 < y0:
        raise DataError(f"{where}: box {numbers} has no area: x1 must be >= x0 and y1 >= y0 (corners, not width)")
    return x0, y0, x1, y1


def _point(values: Any, where: str) -> tuple[float, float, int]:
    x, y, label = _numbers(values, 3, where, "a point is x, y, label")
    if label not in (0, 1):
        raise DataError(f"{where}: the label of a point must be 1 (object) or 0 (background), got {label:g}")
    return x, y, int(label)


def _numbers(values: Any, count: int, where: str, form: str) -> list[float]:
    try:
        numbers = [float(value) for value in values] if isinstance(values, list) else []
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise DataError(f"{where}: {form}, {count} finite numbers; got {values!r}")
    return numbers


def prompt_of_row(row: Mapping[Any, Any], where: str) -> ImagePrompt:
    """The box in the columns `BOX_COLUMNS` of a table's row, each None or NaN or absent where there is none, and the
    points in `POINTS_COLUMN`, JSON or absent or empty.

    Raises DataError that begins with `where`."""
    sides = [row.get(name) for name in BOX_COLUMNS]
    known = [float(side) for side in sides if side is not None and not math.isnan(side)]
    points = _points_of(row.get(POINTS_COLUMN), where)
    if not known:
        return ImagePrompt(points=points)
    if len(known) < len(sides) or known[2] < known[0] or known[3] < known[1]:
        raise DataError(f"{where}: a box is {', '.join(BOX_COLUMNS)} with x1 >= x0 and y1 >= y0; got {sides}")
    return ImagePrompt(box=(known[0], known[1], known[2], known[3]), points=points)


def _points_of(text: object, where: str) -> tuple[tuple[float, float, int], ...]:
    if not isinstance(text, str) or not text.strip():
        return ()
    try:
        points = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {POINTS_COLUMN}: not valid JSON ({error}); expected [[x, y, label], ...]") from error
    return parse_prompt({"points": points}, where).points


def check_inside(prompt: ImagePrompt, size: tuple[int, int], where: str) -> None:
    """Raises DataError for a prompt that leaves its image of `size` (H, W)."""
    height, width = size
    corners: Sequence[tuple[float, float]] = [(x, y) for x, y, _ in prompt.points]
    if prompt.box is not None:
        corners = [*corners, prompt.box[:2], prompt.box[2:]]
    for x, y in corners:
        if not (0 <= x <= width and 0 <= y <= height):
            raise DataError(f"{where}: ({x:g}, {y:g}) lies outside the image of {width} x {height} px")


def to_canvas(prompt: ImagePrompt, size: tuple[int, int], resized: tuple[int, int]) -> Prompts:
    """A prompt in pixels of an image of `size` (H, W) as one of `resized` size (h, w) on the canvas.

    Pixel indices scale by their centres, so that the last column of the image is the last one on the canvas. Without
    box and points the prompt is the frame. Points without a box get SAM's padding point, as the package does."""
    height, width = size
    box = prompt.box
    if box is None and not prompt.points:
        box = (0.0, 0.0, width - 1.0, height - 1.0)
    rows = [(x, y, label) for x, y, label in prompt.points]
    if box is not None:
        rows += [(box[0], box[1], 2), (box[2], box[3], 3)]
    scale = np.array([resized[1] / width, resized[0] / height])
    coordinates = np.array([row[:2] for row in rows], dtype=np.float64)
    labels = [row[2] for row in rows]
    moved = _scaled(coordinates, np.array(labels), scale)
    if box is None:
        moved, labels = np.concatenate([moved, np.zeros((1, 2))]), [*labels, -1]
    points = torch.from_numpy(moved).float()[None]
    return Prompts(points=points, labels=torch.tensor(labels)[None])


def _scaled(coordinates: NDArray[np.float64], labels: NDArray[np.int64], scale: NDArray[np.float64]
            ) -> NDArray[np.float64]:  # fmt: skip
    """Outer edges scale, then indices again: a box corner keeps the pixels it encloses, a point its centre."""
    offset = np.select([labels == 2, labels == 3], [0.0, 1.0], default=0.5)[:, None]
    moved: NDArray[np.float64] = (coordinates + offset) * scale - offset
    return moved
