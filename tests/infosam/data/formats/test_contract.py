"""What every format promises, on a source of its own."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sources import SIZE
from small_volumes import FILES, FORMATS, LABELLED, SLICES, labels

from infosam.data.check.fix import write_fixed
from infosam.data.check.run import check_source
from infosam.data.manifest import discover
from infosam.data.pairs import PartOptions, ReadOptions
from infosam.data.pixels import open_pair
from infosam.data.store import import_dataset, open_dataset

SLICED = [name for name in FORMATS if name != "geotiff"]


def state(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_every_labelled_picture_is_a_pair(name: str, tmp_path: Path) -> None:
    source = FORMATS[name](tmp_path / "set")
    before = state(tmp_path)
    found = discover(source)
    expected = {labels(number)[place].tobytes() for number in range(FILES) for place in LABELLED}
    if name not in SLICED:
        expected = {labels(number)[1].tobytes() for number in range(FILES)}
    contents = [open_pair(pair)[0] for pair in found.pairs]
    assert {content.mask.tobytes() for content in contents} == expected
    assert {content.mask.shape for content in contents} == {SIZE}
    assert len({pair.row for pair in found.pairs}) == len(found.pairs) == len(expected)
    assert all(pair.image.is_relative_to(found.root) for pair in found.pairs)
    assert state(tmp_path) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_a_group_and_never_in_two_splits(name: str, tmp_path: Path) -> None:
    found = discover(FORMATS[name](tmp_path / "set"))
    splits = {(pair.group, pair.split) for pair in found.pairs}
    assert len(splits) == len({group for group, _ in splits}) == FILES


@pytest.mark.parametrize("name", SLICED)
def test_all_slices_are_kept_on_demand_and_the_others_are_counted(name: str, tmp_path: Path) -> None:
    source = FORMATS[name](tmp_path / "set")
    labelled = discover(source)
    assert "6 of 12 slices and tiles without an object left out; --slices all keeps them" in labelled.notes
    found = discover(source, ReadOptions(parts=PartOptions(slices="all")))
    assert len(found.pairs) == FILES * SLICES
    assert {pair.image for pair in labelled.pairs} < {pair.image for pair in found.pairs}


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_imported_checked_and_mended(name: str, tmp_path: Path) -> None:
    source = FORMATS[name](tmp_path / "set")
    report = check_source(source)
    assert report.count("error") == 0
    fixed = write_fixed(report, tmp_path / "fixed")
    assert fixed.left_out == 0
    card = import_dataset(source, domain="d", out=tmp_path / "made")
    store = open_dataset(tmp_path / "made")
    assert sum(card.counts.values()) == len(report.facts)
    shown = {(tmp_path / "fixed" / "images" / path.name).stem[7:] for path in (tmp_path / "fixed/images").iterdir()}
    assert shown == {name for split in ("train", "val", "test") for name in store.ids(split)}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_data_elsewhere_has_the_same_digest(name: str, tmp_path: Path) -> None:
    source = FORMATS[name](tmp_path / "set")
    shutil.copytree(source, tmp_path / "other" / "copy")
    first = import_dataset(source, domain="d", out=tmp_path / "made")
    assert import_dataset(tmp_path / "other" / "copy", domain="d", out=tmp_path / "again").digest == first.digest


@pytest.mark.parametrize("name", FORMATS)
def test_tiles_of_all_pictures_are_one_bright_picture_cut(name: str, tmp_path: Path) -> None:
    """Brightness is that of the whole file, so that the tiles put together are the picture."""
    source = FORMATS[name](tmp_path / "set")
    whole = {pair.image.name: pair for pair in discover(source, ReadOptions(parts=PartOptions(slices="all"))).pairs}
    tiles = discover(source, ReadOptions(parts=PartOptions(slices="all", tile=16, overlap=4))).pairs
    assert len(tiles) == 2 * 3 * len(whole)
    starts = {"y0": 0, "y8": 8, "x0": 0, "x12": 12, "x16": 16}
    seen: dict[str, np.ndarray] = {}
    for tile in tiles:
        stem, y, x = tile.image.stem.rsplit("_", 2)
        name_of_whole = f"{stem}.png" if f"{stem}.png" in whole else tile.image.parent.name
        picture, content = open_pair(whole[name_of_whole])[0], open_pair(tile)[0]
        place = (slice(starts[y], starts[y] + 16), slice(starts[x], starts[x] + 16))
        assert (content.height, content.width) == (16, 16)
        np.testing.assert_array_equal(content.mask, picture.mask[place])
        np.testing.assert_array_equal(rgb(content.image), rgb(picture.image)[place])
        seen.setdefault(name_of_whole, np.zeros(SIZE, bool))[place] = True
    assert all(covered.all() for covered in seen.values())


def rgb(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))
