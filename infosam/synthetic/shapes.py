"""Random silhouettes: blobs, polygons, ellipses, stars, rings, ribbons, trees, meshes, clusters, regions, composites.

Every maker draws into a square of `side_px` and returns a bool mask (side_px, side_px), possibly cut by the frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


def random_shape(side_px: int, rng: np.random.Generator) -> Mask:
    """A silhouette of a random kind; solid ones are drawn more often than thin ones."""
    index = rng.choice(len(_KINDS), p=_SHARES)
    return _KINDS[index](side_px, rng)


def blob(side_px: int, rng: np.random.Generator) -> Mask:
    """A closed curve whose radius is a short random Fourier series."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angles)
    for k in range(2, int(rng.integers(3, 9))):
        radius += rng.normal() * rng.uniform(0.1, 0.5) / k * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.clip(radius, 0.15, None)[:, None]
    return _fill(side_px, _place(outline, side_px, rng))


def ellipse(side_px: int, rng: np.random.Generator) -> Mask:
    """An ellipse of any aspect and direction."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return _fill(side_px, _place(np.stack([np.cos(angles), np.sin(angles)], axis=1), side_px, rng))


def polygon(side_px: int, rng: np.random.Generator) -> Mask:
    """A triangle to octagon with uneven corners."""
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi / corners * 0.8, corners) + np.arange(corners) * 2 * np.pi / corners)
    radius = rng.uniform(0.6, 1.0, corners)
    return _fill(side_px, _place(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None], side_px, rng))


def rectangle(side_px: int, rng: np.random.Generator) -> Mask:
    """A rectangle, upright or turned."""
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    return _fill(side_px, _place(corners, side_px, rng, turn=rng.random() < 0.5))


def star(side_px: int, rng: np.random.Generator) -> Mask:
    """Arms around a centre: leaves, stars, splashes."""
    arms = int(rng.integers(3, 9))
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    wave = np.abs(np.cos(angles * arms / 2)) ** rng.uniform(0.5, 2.5)
    radius = rng.uniform(0.2, 0.6) + wave * rng.uniform(0.4, 1.0)
    return _fill(side_px, _place(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None], side_px, rng))


def ring(side_px: int, rng: np.random.Generator) -> Mask:
    """An ellipse with a hole."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    outer = _place(np.stack([np.cos(angles), np.sin(angles)], axis=1), side_px, rng)
    centre = outer.mean(axis=0)
    return _fill(side_px, outer) & ~_fill(side_px, centre + (outer - centre) * rng.uniform(0.4, 0.8))


def ribbon(side_px: int, rng: np.random.Generator) -> Mask:
    """One or several winding bands: roads, worms, cables, cracks."""
    canvas, draw = _canvas(side_px)
    for _ in range(int(rng.integers(1, 4))):
        draw.line(_flat(_walk(side_px, rng)), fill=1, width=_stroke_px(side_px, rng), joint="curve")
    return np.asarray(canvas, dtype=bool)


def tree(side_px: int, rng: np.random.Generator) -> Mask:
    """A trunk that splits again and again, thinner each time: vessels, roots, twigs."""
    canvas, draw = _canvas(side_px)
    start = rng.uniform(0.05, 0.95, 2) * side_px
    width = rng.uniform(0.015, 0.05) * side_px
    tips = [(start, rng.uniform(0, 2 * np.pi), width, 0)]
    bend = rng.uniform(0.1, 0.5)
    while tips:
        point, heading, width, depth = tips.pop()
        for _ in range(int(rng.integers(3, 7))):
            heading += rng.normal() * bend
            step = point + np.array([np.cos(heading), np.sin(heading)]) * side_px * rng.uniform(0.03, 0.08)
            draw.line([tuple(point), tuple(step)], fill=1, width=max(1, round(width)))
            point = step
        if depth < 4 and width > 0.9:
            fork = rng.uniform(0.3, 0.9)
            tips += [(point, heading + fork, width * 0.75, depth + 1), (point, heading - fork, width * 0.75, depth + 1)]
    return np.asarray(canvas, dtype=bool)


def mesh(side_px: int, rng: np.random.Generator) -> Mask:
    """Straight streets across the whole frame that meet each other."""
    canvas, draw = _canvas(side_px)
    angle, width = rng.uniform(0, np.pi), _stroke_px(side_px, rng)
    for turned in (angle, angle + np.pi / 2 + rng.normal() * 0.2):
        along = np.array([np.cos(turned), np.sin(turned)]) * side_px * 1.5
        for _ in range(int(rng.integers(1, 4))):
            middle = rng.uniform(0, side_px, 2)
            draw.line([tuple(middle - along), tuple(middle + along)], fill=1, width=width)
    return np.asarray(canvas, dtype=bool)


def cluster(side_px: int, rng: np.random.Generator) -> Mask:
    """Many small bodies that belong together: spots, cells, berries."""
    canvas, draw = _canvas(side_px)
    centre, spread = rng.uniform(0.2, 0.8, 2) * side_px, rng.uniform(0.08, 0.3) * side_px
    size = rng.uniform(0.01, 0.05) * side_px
    for _ in range(int(rng.integers(4, 30))):
        x, y = centre + rng.normal(size=2) * spread
        a, b = size * rng.uniform(0.6, 1.8, 2)
        draw.ellipse([x - a, y - b, x + a, y + b], fill=1)
    return np.asarray(canvas, dtype=bool)


def region(side_px: int, rng: np.random.Generator) -> Mask:
    """One side of a wavy line through the frame: sky, ground, water."""
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1.2, 1.2, 40)
    height = np.zeros_like(across)
    for k in range(1, 6):
        height += rng.normal() * rng.uniform(0, 0.25) / k * np.cos(k * across * 3 + rng.uniform(0, 2 * np.pi))
    line = np.stack([across, height + rng.uniform(-0.5, 0.5)], axis=1)
    closed = np.concatenate([line, [[1.2, 3.0], [-1.2, 3.0]]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _fill(side_px, (closed @ turn.T * 0.8 + 0.5) * side_px)


def composite(side_px: int, rng: np.random.Generator) -> Mask:
    """Two to four solids that overlap: an object with limbs."""
    body = _SOLIDS[int(rng.integers(len(_SOLIDS)))](side_px, rng)
    rows, columns = np.nonzero(body)
    if len(rows) == 0:
        return body
    for _ in range(int(rng.integers(1, 4))):
        part = _SOLIDS[int(rng.integers(len(_SOLIDS)))](side_px, rng)
        part_rows, part_columns = np.nonzero(part)
        if len(part_rows) == 0 or len(part_rows) > 2 * len(rows):
            continue
        anchor = int(rng.integers(len(rows)))
        shift = (rows[anchor] - int(part_rows.mean()), columns[anchor] - int(part_columns.mean()))
        body = body | _shifted(part, *shift)
    return body


def _shifted(mask: Mask, down: int, right: int) -> Mask:
    result = np.zeros_like(mask)
    height, width = mask.shape
    source = mask[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    result[max(0, down) : max(0, down) + source.shape[0], max(0, right) : max(0, right) + source.shape[1]] = source
    return result


def _place(outline: Points, side_px: int, rng: np.random.Generator, turn: bool = True) -> Points:
    """Gives a unit outline a random log-uniform size, aspect, direction, and a position inside the frame."""
    size = side_px * np.exp(rng.uniform(np.log(0.08), np.log(0.5)))
    aspect = np.exp(rng.uniform(-0.6, 0.6))
    scaled = outline * size * np.array([aspect, 1 / aspect])
    if turn:
        angle = rng.uniform(0, 2 * np.pi)
        scaled = scaled @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).T
    return scaled + rng.uniform(0.08, 0.92, 2) * side_px


def _walk(side_px: int, rng: np.random.Generator) -> Points:
    """A smooth path across the frame."""
    point, heading = rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi)
    turn, bend = 0.0, rng.uniform(0.02, 0.25)
    path = [point]
    for _ in range(int(rng.integers(8, 40))):
        turn = 0.8 * turn + rng.normal() * bend
        heading += turn
        point = point + np.array([np.cos(heading), np.sin(heading)]) * 0.04
        path.append(point)
    return np.array(path) * side_px


def _stroke_px(side_px: int, rng: np.random.Generator) -> int:
    return max(1, round(side_px * np.exp(rng.uniform(np.log(0.008), np.log(0.07)))))


def _canvas(side_px: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (side_px, side_px))
    return canvas, ImageDraw.Draw(canvas)


def _fill(side_px: int, outline: Points) -> Mask:
    canvas, draw = _canvas(side_px)
    draw.polygon(_flat(outline), fill=1)
    return np.asarray(canvas, dtype=bool)


def _flat(points: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


_SOLIDS: tuple[Callable[[int, np.random.Generator], Mask], ...] = (blob, ellipse, polygon, rectangle, star)
_KINDS: tuple[Callable[[int, np.random.Generator], Mask], ...] = (
    blob, ellipse, polygon, rectangle, star, ring, ribbon, tree, mesh, cluster, region, composite,
)  # fmt: skip
_SHARES = (0.26, 0.10, 0.09, 0.08, 0.06, 0.04, 0.05, 0.03, 0.02, 0.04, 0.08, 0.15)
