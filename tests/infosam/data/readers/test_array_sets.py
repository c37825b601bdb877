from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_sources import AMOUNT, pixels, truth

from infosam.data.manifest import discover
from infosam.data.pairs import MaskChoice, Pair, ReadOptions
from infosam.data.pixels import open_both, open_drawing
from infosam.errors import DataError

IMAGES = np.stack([pixels(number) for number in range(AMOUNT)])
MASKS = np.stack([truth(number) for number in range(AMOUNT)])


def read(source: Path) -> list[Pair]:
    return sorted(discover(source).pairs, key=lambda pair: pair.image.name)


@pytest.mark.parametrize("names", [("images", "masks"), ("X_train", "y_train"), ("train-imgs", "train-gts")])
def test_two_files_are_a_set(names: tuple[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / f"{names[0]}.npy", IMAGES)
    np.save(tmp_path / f"{names[1]}.npy", MASKS.astype(np.uint8)[..., None] * 255)
    for number, pair in enumerate(read(tmp_path)):
        assert pair.image.name == f"{names[0]}_{number:06}.png"
        assert pair.group is None  # pictures of their own, not slices
        np.testing.assert_array_equal(open_both(pair)[0].rgb, IMAGES[number])
        np.testing.assert_array_equal(open_both(pair)[1].masks[0], MASKS[number])


def test_floats_with_colours_first_have_one_brightness(tmp_path: Path) -> None:
    values = IMAGES / 60 - 2
    np.savez(tmp_path / "set.npz", x=np.moveaxis(values, 3, 1), y=MASKS[:, None])
    low, high = np.percentile(values, [0.5, 99.5], axis=(0, 1, 2))
    for number, pair in enumerate(read(tmp_path / "set.npz")):
        expected = np.rint(np.clip((values[number] - low) / (high - low), 0, 1) * 255)
        np.testing.assert_array_equal(open_both(pair)[0].rgb, expected)


def test_splits_are_those_of_the_names_and_values_are_of_the_whole_set(tmp_path: Path) -> None:
    """The first picture has class 2 only: alone it would be a mask of two values."""
    parts = {"train": slice(0, 3), "val": slice(3, 4), "test": slice(4, AMOUNT)}
    drawn = np.where(np.arange(AMOUNT)[:, None, None] % 2, MASKS, MASKS * 2)
    arrays = {f"{split}_images": IMAGES[part] for split, part in parts.items()}
    np.savez(tmp_path / "set.npz", **arrays, **{f"{split}_label": drawn[part] for split, part in parts.items()})
    pairs = read(tmp_path)
    assert [pair.split for pair in pairs] == ["test"] * 2 + ["train"] * 3 + ["val"]
    with pytest.raises(Exception, match=r"train_label_000000\.png: the mask has 3 different values"):
        open_drawing(pairs[2])
    chosen = discover(tmp_path, ReadOptions(choice=MaskChoice(classes=("2",))))
    assert len(chosen.pairs) == 3


def test_an_npz_for_each_case_is_a_pair(tmp_path: Path) -> None:
    """As Synapse comes; slices of one case are told to be so."""
    for number in range(AMOUNT):
        path = tmp_path / f"case{number // 2}_slice{number % 2}.npz"
        np.savez(path, image=IMAGES[number, :, :, 0], label=MASKS[number].astype(np.float32))
    found = discover(tmp_path)
    assert len(found.pairs) == AMOUNT
    assert r"--group '(case\d+)'" in found.notes[-1]
    np.savez(tmp_path / "other.npz", spacing=np.ones(3))
    with pytest.raises(DataError, match=r"other\.npz: holds spacing; name its arrays image and label"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        (IMAGES, np.arange(AMOUNT)[:, None], "train_label is int64 of the shape 6 x 1; masks are numbers (N, H, W)"),
        (IMAGES, MASKS[:4], "train_label has the shape 4 x 24 x 32, train_images holds 6 pictures of 24 x 32"),
        (IMAGES[..., None], MASKS, "train_images is uint8 of the shape 6 x 24 x 32 x 3 x 1; images are numbers"),
        (IMAGES.astype(object), MASKS, "holds Python objects (pickle), which are never loaded"),
    ],
)
def test_what_is_no_set_of_masks_is_named(images: np.ndarray, masks: np.ndarray, words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train_images=images, train_label=masks)
    with pytest.raises(DataError) as caught:
        discover(tmp_path / "set.npz")
    assert words in str(caught.value)
    assert "set.npz" in str(caught.value)
