"""Copies are told from pictures that only look alike."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from spoiled import photo

from infosam.data.check.near import COMPARED, alike_in, thumbnail_of

SIDE = 160
AMOUNT = 12


def on_flat_ground(seed: int) -> Image.Image:
    """Three blots on a grey table, with a camera's noise."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (SIDE, SIDE), (200, 200, 200))
    for _ in range(3):
        x, y, size = rng.integers(10, 110), rng.integers(10, 110), rng.integers(12, 40)
        ImageDraw.Draw(picture).ellipse((x, y, x + size, y + size), fill=tuple(map(int, rng.integers(0, 180, 3))))
    return Image.fromarray((np.asarray(picture) + rng.integers(0, 6, (SIDE, SIDE, 3))).astype(np.uint8))


def fundus(seed: int) -> Image.Image:
    """A bright round field with a brighter spot, the same in all, and vessels, others in each."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (SIDE, SIDE))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((8, 8, 152, 152), fill=(190, 90, 40))
    draw.ellipse((100, 65, 124, 89), fill=(250, 200, 120))
    for _ in range(9):
        path = np.cumsum([(112, 77), *rng.normal((-9, 0), 12, (6, 2))], axis=0)
        draw.line([(float(x), float(y)) for x, y in path], fill=(110, 30, 20), width=4)
    return picture


def jpeg(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


COPIES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": jpeg,
    "smaller": lambda picture: picture.resize((70, 90)),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "mirrored": lambda picture: jpeg(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "turned": lambda picture: picture.transpose(Image.Transpose.ROTATE_270),
}
KINDS: Mapping[str, Callable[[int], Image.Image]] = {
    "photographs": lambda seed: photo(seed, SIDE),
    "flat": on_flat_ground,
    "fundus": fundus,
}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_found_and_nothing_else(kind: str) -> None:
    pictures = [KINDS[kind](seed) for seed in range(AMOUNT)]
    thumbnails = [thumbnail_of(np.asarray(picture)) for picture in pictures]
    assert [*alike_in(thumbnails, lambda one, other: True)] == []
    for name, change in COPIES.items():
        copies = [thumbnail_of(np.asarray(change(picture))) for picture in pictures]
        found = [*alike_in([*thumbnails, *copies], lambda one, other: (one < AMOUNT) != (other < AMOUNT))]
        turned = name in ("mirrored", "turned")
        assert found == [(AMOUNT + number, number, turned) for number in range(AMOUNT)], name


def test_a_little_cut_off_is_still_a_copy() -> None:
    picture = photo(1, SIDE)
    cut = picture.crop((4, 4, SIDE - 4, SIDE - 4))
    thumbnails = [thumbnail_of(np.asarray(one)) for one in (picture, cut)]
    assert [*alike_in(thumbnails, lambda one, other: True)] == [(1, 0, False)]


def test_only_what_is_apart_is_compared_and_not_more_than_so_many() -> None:
    asked: list[tuple[int, int]] = []

    def never(one: int, other: int) -> bool:
        asked.append((one, other))
        return False

    same = [thumbnail_of(np.asarray(photo(1)))] * (COMPARED + 50)
    assert [*alike_in(same, never)] == []
    assert max(sum(one == position for one, _ in asked) for position in range(len(same))) == COMPARED
