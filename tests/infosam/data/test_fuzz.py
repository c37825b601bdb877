"""Random bytes and random structure: whatever comes is read or refused, never a crash, never a hang."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_sources import SIZE, coco_content, encoded, huggingface, pixels, truth, write_pictures

from infosam.data.manifest import find_pairs
from infosam.data.masks import Unusable
from infosam.data.pixels import read_pair
from infosam.data.readers import shapes
from infosam.data.readers.matching import find_rule, pair_names
from infosam.errors import DataError

FEW = settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def heads() -> dict[str, bytes]:
    """The beginnings of pictures in several formats."""
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(pixels(1)).save(buffer, format=kind)
        found[kind] = buffer.getvalue()
    return found


@FEW
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_changed_header_is_read_or_refused(data: st.DataObject, heads: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(heads[data.draw(st.sampled_from(sorted(heads)))])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 120) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    image, mask = tmp_path / "i.png", tmp_path / "m.png"
    image.write_bytes(bytes(content[:cut]))
    mask.write_bytes(bytes(content))
    with suppress(Unusable):
        read_pair(image, mask)


@FEW
@given(text=st.binary(max_size=300), name=st.sampled_from(["list.csv", "list.tsv", "list.json", "list.parquet"]))
def test_any_bytes_as_a_list(text: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"image,label\n" * (name[-3:] == "csv") + text)
    with suppress(DataError):
        assert find_pairs(path)


@FEW
@given(segmentation=JSON)
def test_any_json_as_a_segmentation(segmentation: Any) -> None:
    with suppress(shapes.BadShape):
        shapes.check_segmentation(segmentation, SIZE)
        assert shapes.draw(segmentation, SIZE).shape == SIZE


@FEW
@given(
    outline=st.lists(st.floats(-1e6, 1e6) | st.integers(-50, 50), min_size=6, max_size=40).filter(
        lambda numbers: len(numbers) % 2 == 0
    )
)
def test_any_outline_is_drawn(outline: list[float]) -> None:
    assert shapes.draw([outline], SIZE).shape == SIZE


@FEW
@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=60))
def test_any_text_as_run_lengths(text: str) -> None:
    with suppress(shapes.BadShape):
        shapes.check_segmentation({"size": list(SIZE), "counts": text}, SIZE)


@FEW
@given(where=st.sampled_from(["images", "annotations", "categories"]), what=JSON, entry=st.integers(0, 5))
def test_any_json_inside_coco(where: str, what: Any, entry: int, tmp_path: Path) -> None:
    if not (tmp_path / "images").exists():
        write_pictures(tmp_path, mask=None)
    content: Any = coco_content()
    content[where] = [*content[where][:entry], what, *content[where][entry:]]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    with suppress(DataError):
        assert find_pairs(path)


@FEW
@given(where=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_changed_byte_in_an_arrow_file(where: int, byte: int, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    if not folder.exists():
        huggingface(folder)
        (tmp_path / "kept").write_bytes((folder / "train" / "data-00000-of-00001.arrow").read_bytes())
    content = bytearray((tmp_path / "kept").read_bytes())
    content[where % len(content)] = byte
    target = folder / "train" / "data-00000-of-00001.arrow"
    target.unlink()  # the old one may still be mapped
    target.write_bytes(bytes(content))
    with suppress(DataError):
        assert find_pairs(folder)


NAMES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12), max_size=12)


@FEW
@given(images=NAMES, masks=NAMES)
def test_any_names_are_matched_or_not(images: list[str], masks: list[str]) -> None:
    paired = pair_names(find_rule(images, masks), images, masks)
    assert paired.keys() <= set(images)
    assert {mask for found in paired.values() for mask in found} <= set(masks)


def test_the_helpers_of_this_file_are_good_pictures(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(encoded(pixels(0)))
    (tmp_path / "m.png").write_bytes(encoded(truth(0).astype("uint8")))
    assert read_pair(tmp_path / "i.png", tmp_path / "m.png").fg_fraction > 0
