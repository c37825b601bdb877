from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sources import beside

from infosam.data.manifest import Splitting, discover
from infosam.data.pairs import MaskChoice, ReadOptions
from infosam.data.pixels import open_pair
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import DataError


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    """Forty images of ten patients; mask N has N + 1 rows of object."""
    for number in range(40):
        for kind, pixels in (("images", np.full((40, 8), number, np.uint8)), ("masks", np.zeros((40, 8), np.uint8))):
            if kind == "masks":
                pixels[: number + 1] = 255
            path = tmp_path / "graded" / kind / f"patient{number % 10}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "graded"


def test_folders_below_are_read_and_a_pattern_makes_groups(graded: Path) -> None:
    pairs = discover(graded, splitting=Splitting(group=r"patient(\d+)")).pairs
    assert len(pairs) == 40
    by_group = defaultdict(set)
    for pair in pairs:
        by_group[pair.group].add(pair.split)
    assert len(by_group) == 10
    assert all(len(splits) == 1 for splits in by_group.values())


def test_a_column_makes_groups(graded: Path) -> None:
    rows = [f"images/patient{n % 10}/{n}.png,masks/patient{n % 10}/{n}.png,v{n // 8}" for n in range(40)]
    (graded / "list.csv").write_text("image,label,video\n" + "\n".join(rows))
    pairs = discover(graded / "list.csv", splitting=Splitting(group="video")).pairs
    assert len({(pair.group, pair.split) for pair in pairs}) == 5


@pytest.mark.parametrize(("group", "expected"), [("[", "no pattern"), ("patient", "one part in brackets")])
def test_a_bad_pattern_is_refused(graded: Path, group: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        discover(graded, splitting=Splitting(group=group))


def test_a_pattern_that_leaves_images_out_is_refused(graded: Path) -> None:
    with pytest.raises(DataError, match=r"16 problems[\s\S]*widen the pattern"):
        discover(graded, splitting=Splitting(group=r"patient([0-5])"))


def test_stratified_splits_hold_small_and_large_objects_alike(graded: Path) -> None:
    found = discover(graded, splitting=Splitting(stratify=True, seed=1))
    assert Counter(pair.split for pair in found.pairs) == {"train": 28, "val": 6, "test": 6}
    for split in ("val", "test"):
        numbers = sorted(int(pair.image.stem) for pair in found.pairs if pair.split == split)
        assert np.mean(numbers) == pytest.approx(19.5, abs=4)
        assert numbers[0] < 10 < 30 < numbers[-1]
    again = discover(graded, splitting=Splitting(stratify=True, seed=1))
    assert again.pairs == found.pairs


def test_given_splits_can_be_forgotten(csv_set: Path) -> None:
    given = {pair.image: pair.split for pair in discover(csv_set).pairs}
    drawn = discover(csv_set, splitting=Splitting(anew=True, seed=5))
    assert {pair.image for pair in drawn.pairs} == given.keys()
    assert {pair.image: pair.split for pair in drawn.pairs} != given
    assert any("seed 5" in note for note in drawn.notes)


def test_folders_that_may_be_patients_are_told(tmp_path: Path, write_pair: Callable[..., None]) -> None:
    for patient in "abc":
        for number in range(3):
            write_pair(tmp_path / "set", f"x/{number}{patient}")
            for kind in ("images", "masks"):
                (tmp_path / "set" / kind / patient).mkdir(exist_ok=True)
                (tmp_path / "set" / kind / "x" / f"{number}{patient}.png").rename(
                    tmp_path / "set" / kind / patient / f"{number}.png"
                )
    told = "images to train on lie in 3 folders, such as images/"
    assert any(told in note for note in discover(tmp_path / "set").notes)
    grouped = discover(tmp_path / "set", splitting=Splitting(group="([^/]+)/[^/]*$"))
    assert not any(told in note for note in grouped.notes)


def test_one_folder_to_train_on_beside_that_of_a_given_split_is_none_of_many(
    tmp_path: Path, write_pair: Callable[..., None]
) -> None:
    for split, amount in (("train", 6), ("test", 3)):
        for number in range(amount):
            write_pair(tmp_path / split, f"{split}{number}")
    found = discover(tmp_path)
    assert any("drawn for it" in note for note in found.notes)
    assert not any("folders" in note for note in found.notes)


def test_a_rule_for_names_is_told(tmp_path: Path) -> None:
    found = discover(beside(tmp_path / "road"))
    assert any("NAME_sat.* belongs to mask NAME_mask.*" in note for note in found.notes)


# ------------------------------------------------------------------------------------------------ classes, objects


@pytest.fixture
def label_map(tmp_path: Path) -> Callable[[str], Path]:
    """Six images with label maps: 0, 1 in the left third, 2 on top of the right one, but not in the last two."""

    def write(mode: str) -> Path:
        for number in range(6):
            values = np.zeros((12, 30), np.uint8)
            values[:, :10] = 1
            if number < 4:
                values[:6, 20:] = 2
            mask = Image.fromarray(values)
            if mode != "grey":
                mask = Image.fromarray(values, mode="P")
                mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
            for kind, picture in (
                ("images", Image.fromarray(np.full((12, 30), number, np.uint8))),
                ("masks", mask.convert("RGB") if mode == "colours" else mask),
            ):
                (tmp_path / kind).mkdir(exist_ok=True)
                picture.save(tmp_path / kind / f"{number}.png")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("mode", "word", "images", "area"),
    [
        ("grey", "1", 6, 120),
        ("grey", "2", 4, 60),
        ("palette", "1", 6, 120),
        ("palette", "2", 4, 60),
        ("palette", "#00ff00", 4, 60),
        ("colours", "#FF0000", 6, 120),
        ("colours", "#00ff00", 4, 60),
    ],
)
def test_a_class_of_a_label_map(label_map: Callable[[str], Path], mode: str, word: str, images: int, area: int) -> None:
    found = discover(label_map(mode), ReadOptions(choice=MaskChoice(classes=(word,))))
    assert len(found.pairs) == images
    assert {int(open_pair(pair, found.options.choice)[0].mask.sum()) for pair in found.pairs} == {area}
    assert any("2 images without the chosen class" in note for note in found.notes) is (images == 4)


def test_several_classes_are_united(label_map: Callable[[str], Path]) -> None:
    choice = MaskChoice(classes=("1", "2"))
    assert open_pair(discover(label_map("grey")).pairs[0], choice)[0].mask.sum() in (120, 180)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("polyp",), "give a number such as 3"),
        (("#ff0000", "2"), "not both"),
        (("9",), "no mask has a pixel of --class 9"),
    ],
)
def test_a_class_that_cannot_be_is_refused(
    label_map: Callable[[str], Path], classes: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        discover(label_map("grey"), ReadOptions(choice=MaskChoice(classes=classes)))


def test_values_and_regions_become_objects(label_map: Callable[[str], Path], tmp_path: Path) -> None:
    source = label_map("grey")
    options = ReadOptions(choice=MaskChoice(instances=True))
    card = import_dataset(source, domain="d", out=tmp_path / "set", options=options)
    assert sum(card.counts.values()) == 4 * 2 + 2
    store = open_dataset(tmp_path / "set")
    areas = {name: store.read("train", index).mask.sum() for index, name in enumerate(store.ids("train"))}
    assert {area for name, area in areas.items() if name.endswith("__1")} <= {60}
    two = np.zeros((12, 30), np.uint8)
    two[2:6, 2:6] = two[8:11, 20:25] = 255
    two[0, 29] = 255  # a speck
    Image.fromarray(two).save(source / "masks" / "0.png")
    pair = next(pair for pair in discover(source).pairs if pair.image.stem == "0")
    assert sorted(int(content.mask.sum()) for content in open_pair(pair, options.choice)) == [15, 16]


def test_pieces_of_an_image_stay_in_its_split(label_map: Callable[[str], Path], tmp_path: Path) -> None:
    options = ReadOptions(choice=MaskChoice(instances=True))
    import_dataset(label_map("grey"), domain="d", out=tmp_path / "set", options=options)
    store = open_dataset(tmp_path / "set")
    stems = [{name.partition("__")[0] for name in store.ids(split)} for split in ("train", "val", "test")]
    assert sum(map(len, stems)) == len(set.union(*stems))


def test_objects_of_one_mask_are_rows_of_their_own_when_read_again(
    label_map: Callable[[str], Path], tmp_path: Path
) -> None:
    options = ReadOptions(choice=MaskChoice(instances=True))
    import_dataset(label_map("grey"), domain="d", out=tmp_path / "set", options=options)
    assert len(discover(tmp_path / "set").pairs) == 10


def test_equal_pictures_under_other_names_stay_in_one_split(folder_set: Path) -> None:
    """Else one is trained on and the other scored."""
    for number in range(10, 20):
        first, second = (folder_set / "images" / f"photo {n}.png" for n in (number - 10, number))
        second.write_bytes(first.read_bytes())
    for seed in range(5):
        found = discover(folder_set, splitting=Splitting(seed=seed))
        split = {pair.image.stem: pair.split for pair in found.pairs}
        assert all(split[f"photo {n}"] == split[f"photo {n + 10}"] for n in range(10))
        assert set(split.values()) == {"train", "val", "test"}
        assert "10 images (or groups) hold a picture of another one: equal pictures stay in one split" in found.notes
