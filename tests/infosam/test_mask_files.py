"""Masks as files that other programs read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from infosam.data.store import import_dataset, open_dataset
from infosam.mask_files import CocoMasks, PngMasks, coco_shape

RNG = np.random.default_rng(0)
MASKS: list[NDArray[np.bool_]] = [
    RNG.random((7, 5)) < 0.5,
    np.ones((3, 4), dtype=bool),
    np.eye(6, dtype=bool),
    np.pad(np.ones((1, 1), dtype=bool), 3),
]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own arrays
@pytest.mark.parametrize("mask", MASKS)
def test_coco_own_tools_read_the_same_mask(mask: NDArray[np.bool_]) -> None:
    made = coco_shape(mask)
    encoded = made["segmentation"]
    assert (coco.decode(encoded).astype(bool) == mask).all()
    assert coco.area(encoded) == made["area"] == mask.sum()
    assert coco.toBbox(encoded).tolist() == made["bbox"]


def test_a_coco_file_of_a_run(tmp_path: Path) -> None:
    writer = CocoMasks(tmp_path)
    for name, mask, domain in (
        ("a.png", MASKS[0], "polyp"),
        ("b.jpg", np.zeros((4, 4), bool), None),
        ("c.png", MASKS[2], None),
    ):
        writer.add(Path(name), mask, domain)
    assert list(tmp_path.iterdir()) == []
    file = writer.finish()
    content = json.loads(file.read_text(encoding="utf-8"))
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.jpg", "c.png"]
    assert content["images"][0] == {"id": 1, "file_name": "a.png", "height": 7, "width": 5}
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert [(one["image_id"], names[one["category_id"]]) for one in content["annotations"]] == [
        (1, "polyp"),
        (3, "object"),
    ]
    assert len({one["id"] for one in content["annotations"]}) == 2


def test_our_own_import_reads_it(tmp_path: Path) -> None:
    """What was predicted can be corrected and trained on."""
    source = tmp_path / "source"
    source.mkdir()
    writer = CocoMasks(source)
    for number in range(6):
        mask = np.zeros((20, 30), dtype=bool)
        mask[3 : 9 + number, 4:20] = True
        Image.fromarray(RNG.integers(0, 255, (20, 30, 3), np.uint8)).save(source / f"{number}.png")
        writer.add(Path(f"{number}.png"), mask, "polyp")
    writer.finish()
    import_dataset(source, domain="polyp", out=tmp_path / "data")
    store = open_dataset(tmp_path / "data")
    areas = {
        int(store.read(split, row).mask.sum()) for split in ("train", "val", "test") for row in range(store.rows(split))
    }
    assert areas == {16 * (6 + number) for number in range(6)}


def test_pngs(tmp_path: Path) -> None:
    writer = PngMasks(tmp_path)
    writer.add(Path("somewhere/a.jpg"), MASKS[0], None)
    folder = writer.finish()
    with Image.open(folder / "somewhere" / "a.png") as image:
        assert (np.asarray(image) == MASKS[0] * 255).all()
