from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference
from small_sources import SIZE, coco, coco_content, rectangle, truth

from infosam.data.card import SPLITS
from infosam.data.manifest import discover
from infosam.data.pairs import MaskChoice, ReadOptions
from infosam.data.pixels import open_pair
from infosam.data.readers import shapes
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import DataError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return coco(tmp_path / "set")


def written(source: Path, content: Any, name: str = "instances.json") -> Path:
    (source / "annotations" / name).write_text(json.dumps(content))
    return source


def masks_of(source: Path, **choice: Any) -> list[np.ndarray]:
    found = discover(source, ReadOptions(choice=MaskChoice(**choice)))
    return [open_pair(pair)[0].mask for pair in sorted(found.pairs, key=lambda pair: pair.row)]


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_the_formats_own_library(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 200, 2))
    mask = rng.random((height, width)) < rng.random()
    packed = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    rle = {"size": [height, width], "counts": packed["counts"].decode("ascii")}
    np.testing.assert_array_equal(shapes.draw(rle, (height, width)), mask)
    plain = {"size": [height, width], "counts": shapes.decode_counts(rle["counts"])}
    np.testing.assert_array_equal(shapes.draw(plain, (height, width)), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
@pytest.mark.parametrize("seed", range(20))
def test_polygons_differ_from_the_formats_own_library_at_the_edge_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.random(9)) * 2 * np.pi
    radius = rng.uniform(20, 50, 9)
    outline = np.stack([60 + radius * np.cos(angles), 55 + radius * np.sin(angles)], axis=1).ravel().tolist()
    ours = shapes.draw([outline], (110, 120))
    theirs = reference.decode(reference.merge(reference.frPyObjects([outline], 110, 120))).astype(bool)
    edge = np.zeros_like(ours)
    for axis in (0, 1):
        for step in (-1, 1):
            edge |= ours ^ np.roll(ours, step, axis)
    assert not ((ours ^ theirs) & ~edge).any()
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


def test_a_polygon_covers_the_pixels_whose_centres_lie_in_it() -> None:
    mask = shapes.draw([[1, 1, 4, 1, 4, 3, 1, 3]], (5, 6))
    assert mask.sum() == 6
    assert mask[1:3, 1:4].all()
    assert not shapes.draw([[1, 1, 4, 1, 4, 1]], (5, 6)).any()
    assert shapes.draw([[-1e8, -1e8, 1e8, -1e8, 1e8, 1e8, -1e8, 1e8]], (5, 6)).all()


def test_annotations_of_an_image_are_united_or_rows_of_their_own(source: Path) -> None:
    content: Any = coco_content()
    content["annotations"].append(
        {"id": 7, "image_id": 0, "category_id": 2, "segmentation": [[0, 20, 3, 20, 3, 23, 0, 23]]}
    )
    written(source, content)
    corner = np.zeros(SIZE, bool)
    corner[20:23, 0:3] = True
    united = masks_of(source)
    assert len(united) == 6
    np.testing.assert_array_equal(united[0], truth(0) | corner)
    singly = masks_of(source, instances=True)
    assert len(singly) == 7
    found = discover(source, ReadOptions(choice=MaskChoice(instances=True)))
    assert {pair.image.name for pair in found.pairs} == {f"{n}.png" for n in range(6)}
    splits = {(pair.image, pair.split) for pair in found.pairs}
    assert len(splits) == 6


@pytest.mark.parametrize("word", ["ball", "2"])
def test_one_class_is_chosen_by_name_or_id(source: Path, word: str) -> None:
    content: Any = coco_content()
    for annotation in content["annotations"][:4]:
        annotation["category_id"] = 2
    found = discover(written(source, content), ReadOptions(choice=MaskChoice(classes=(word,))))
    assert len(found.pairs) == 4
    assert any("2 images without such an object left out" in note for note in found.notes)


def test_crowds_are_no_single_objects(source: Path) -> None:
    content: Any = coco_content()
    runs = {"size": list(SIZE), "counts": [10, SIZE[0] * SIZE[1] - 10]}
    content["annotations"].append({"id": 8, "image_id": 0, "category_id": 1, "iscrowd": 1, "segmentation": runs})
    written(source, content)
    assert masks_of(source)[0].sum() == SIZE[0] * SIZE[1] - 10 + truth(0).ravel(order="F")[:10].sum()
    assert len(masks_of(source, instances=True)) == 6


def test_splits_come_from_names_of_files_and_folders(source: Path) -> None:
    (source / "annotations" / "instances.json").unlink()
    content: Any = coco_content()
    for name, numbers in (
        ("instances_train2017.json", (0, 1, 2)),
        ("instances_val2017.json", (3, 4)),
        ("test.json", (5,)),
    ):
        part = copy.deepcopy(content)
        for key, field in (("images", "id"), ("annotations", "image_id")):
            part[key] = [one for one in part[key] if one[field] in numbers]
        written(source, part, name)
    assert [pair.split for pair in discover(source).pairs] == ["train"] * 3 + ["val"] * 2 + ["test"]


def test_a_folder_by_another_word_for_the_split_is_found(source: Path) -> None:
    written(source, coco_content(), "annotations_val.json")
    (source / "annotations" / "instances.json").unlink()
    (source / "images").rename(source / "valid")
    assert {pair.split for pair in discover(source).pairs} == {"val"}


def test_one_file_of_a_folder_finds_the_images_beside_it(source: Path) -> None:
    assert len(discover(source / "annotations" / "instances.json").pairs) == 6


def test_all_categories_of_one_name_are_chosen(source: Path) -> None:
    content: Any = coco_content()
    content["categories"] = [{"id": number, "name": name} for number, name in ((1, "cat"), (7, "cat"), (9, "1"))]
    for annotation, number in zip(content["annotations"], (1, 7, 9, 1, 7, 7), strict=True):
        annotation["category_id"] = number
    written(source, content)
    assert len(discover(source, ReadOptions(choice=MaskChoice(classes=("cat",)))).pairs) == 5
    with pytest.raises(DataError, match="'1' is the name of one category and the id of another"):
        discover(source, ReadOptions(choice=MaskChoice(classes=("1",))))
    assert "objects of all 3 categories count: cat (3), cat (2), 1 (1)" in " ".join(discover(source).notes)


def test_what_else_is_said_of_the_same_images_is_not_read(source: Path) -> None:
    content: Any = coco_content()
    written(source, content, "instances_val.json")
    (source / "annotations" / "instances.json").unlink()
    captions = {"images": content["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "a box"}]}
    (source / "annotations" / "captions_val.json").write_text(json.dumps(captions))
    found = discover(source)
    assert len(found.pairs) == 6
    assert "not read: captions_val.json" in found.notes[0]


def test_images_in_two_files_are_told(source: Path) -> None:
    written(source, coco_content(), "instances (1).json")
    found = discover(source)
    assert len(found.pairs) == 12
    assert "6 images are in instances (1).json and instances.json" in found.notes[0]


BAD_SHAPES = {
    "only a box": [],
    "short outline": [[1, 2, 3, 4]],
    "odd outline": [[1, 2, 3, 4, 5, 6, 7]],
    "text": [["a", "b", "c", "d", "e", "f"]],
    "no number": [[1, 2, float("nan"), 4, 5, 6]],
    "infinite": [[1, 2, float("inf"), 4, 5, 6]],
    "beyond all": [[1, 2, 1e300, 4, 5, 6]],
    "shares": [[0.1, 0.1, 0.9, 0.1, 0.9, 1.0]],
    "too few pixels": {"size": list(SIZE), "counts": [10, 20]},
    "negative run": {"size": list(SIZE), "counts": [-10, SIZE[0] * SIZE[1] + 10]},
    "other size": {"size": [2, 2], "counts": [0, 4]},
    "no counts": {"size": list(SIZE)},
    "broken text": {"size": list(SIZE), "counts": "\x00\x01"},
    "text cut short": {"size": list(SIZE), "counts": "ooo"},
    "endless number": {"size": list(SIZE), "counts": "o" * 500 + "0"},
    "a number": 3,
    "nothing": None,
}


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_a_bad_shape_is_named_with_its_annotation(name: str, source: Path) -> None:
    content: Any = coco_content()
    content["annotations"][2]["segmentation"] = BAD_SHAPES[name]
    with pytest.raises(DataError, match=r"annotation 102: .*(draw it again|remove)"):
        discover(written(source, content))


def test_compressed_counts_follow_the_format() -> None:
    text = reference.encode(np.asfortranarray(truth(1).astype(np.uint8)))["counts"].decode("ascii")
    assert sum(shapes.decode_counts(text)) == SIZE[0] * SIZE[1]
    assert rectangle(1)[0] == 6.0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
def test_run_lengths_of_their_own_library_become_the_same_pixels(source: Path, tmp_path: Path) -> None:
    """Encoded by pycocotools, imported, and read back from the data set."""
    content: Any = coco_content()
    drawn = {}
    for annotation in content["annotations"]:
        mask = np.random.default_rng(annotation["id"]).random(SIZE) < 0.3
        code = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
        annotation["segmentation"] = {"size": list(code["size"]), "counts": code["counts"].decode()}
        drawn[str(annotation["image_id"])] = mask
    import_dataset(written(source, content), domain="noise", out=tmp_path / "out")
    store = open_dataset(tmp_path / "out")
    read = [store.read(split, index) for split in SPLITS for index in range(store.rows(split))]
    assert {sample.id for sample in read} == drawn.keys()
    for sample in read:
        np.testing.assert_array_equal(sample.mask, drawn[sample.id])
