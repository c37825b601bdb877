from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_sources import SIZE, pixels
from small_volumes import LABELLED, SLICES, intensities, labels, scene, write_pages, write_tiff

from infosam.data.manifest import discover
from infosam.data.pairs import PartOptions, ReadOptions
from infosam.data.pixels import open_both
from infosam.errors import DataError


def stacks(folder: Path, kind: type[np.generic] = np.uint16, flat: bool = False) -> Path:
    for number in range(3):
        write_pages(folder / f"images/s{number}.tif", (intensities(number) + 1000).astype(kind))
        write_pages(folder / f"masks/s{number}.tif", labels(number)[1:2] if flat else labels(number))
    return folder


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_every_page_is_a_slice_and_all_have_one_brightness(kind: type[np.generic], tmp_path: Path) -> None:
    found = discover(stacks(tmp_path, kind))
    pairs = sorted(found.pairs, key=lambda pair: pair.row)
    assert [pair.image.name for pair in pairs[: len(LABELLED)]] == [f"s0_page_{place}.png" for place in LABELLED]
    assert {pair.group for pair in pairs} == {f"images/s{number}" for number in range(3)}
    values = (intensities(0) + 1000).astype(kind)
    low, high = (0, 255) if kind is np.uint8 else np.percentile(values.astype(float), [0.5, 99.5])
    for pair, place in zip(pairs, LABELLED, strict=False):
        picture, drawing = open_both(pair)
        expected = np.rint(np.clip((values[place].astype(float) - low) / (high - low), 0, 1) * 255)
        np.testing.assert_array_equal(picture.rgb[:, :, 0], expected)
        np.testing.assert_array_equal(drawing.masks[0], labels(0)[place] == 1)


def test_one_mask_for_many_pages_is_refused_and_bands_make_them_one_picture(tmp_path: Path) -> None:
    source = stacks(tmp_path, np.uint8, flat=True)
    with pytest.raises(DataError, match=rf"s0\.tif {SIZE[1]} x {SIZE[0]} x {SLICES}; .*--bands 1"):
        discover(source)
    pair = min(discover(source, ReadOptions(parts=PartOptions(bands=(3, 2, 1)))).pairs, key=lambda pair: pair.row)
    expected = (intensities(0) + 1000).astype(np.uint8)[[2, 1, 0]]
    np.testing.assert_array_equal(open_both(pair)[0].rgb, np.moveaxis(expected, 0, 2))


def test_one_page_of_a_file_with_colours_may_be_chosen(tmp_path: Path) -> None:
    for number in range(3):
        write_pages(tmp_path / f"images/s{number}.tif", np.stack([pixels(number), pixels(number + 3)]))
        write_pages(tmp_path / f"masks/s{number}.tif", labels(number)[1:2])
    pair = min(discover(tmp_path, ReadOptions(parts=PartOptions(bands=(2,)))).pairs, key=lambda pair: pair.row)
    np.testing.assert_array_equal(open_both(pair)[0].rgb, pixels(3))
    with pytest.raises(DataError, match="its pages have colours; choose one page, such as --bands 1"):
        discover(tmp_path, ReadOptions(parts=PartOptions(bands=(1, 2, 1))))


def test_smaller_copies_for_display_are_no_pages(tmp_path: Path) -> None:
    for number in range(3):
        content = (scene(64, 64, 3, number) % 256).astype(np.uint8)
        path = write_tiff(tmp_path / f"images/s{number}.tif", content, (0, 0))
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4], rasterio.enums.Resampling.average)
        write_tiff(tmp_path / f"masks/s{number}.tif", np.eye(64, dtype=np.uint8)[None])
    assert sorted(pair.image.name for pair in discover(tmp_path).pairs) == ["s0.tif", "s1.tif", "s2.tif"]
