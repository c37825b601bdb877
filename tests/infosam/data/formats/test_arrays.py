from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_sources import SIZE, encoded, pixels, truth
from small_volumes import intensities, labels, open_all

from infosam.data.manifest import discover
from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.data.pixels import Unusable, open_both, open_pair
from infosam.errors import DataError


def source_of(folder: Path, image: object, mask: object, save: object = np.save, ending: str = "npy") -> Path:
    for name, content in (("images", image), ("masks", mask)):
        (folder / name).mkdir(exist_ok=True)
        for number in range(3):
            save(folder / name / f"a{number}.{ending}", content)  # type: ignore[operator]
    return folder


def read(source: Path, **parts: object) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures and masks of the first file."""
    options = ReadOptions(parts=PartOptions(slices="all", **parts))
    pairs = sorted(discover(source, options).pairs, key=lambda pair: pair.row)
    both = [open_both(pair) for pair in pairs[: len(pairs) // 3]]
    return [(picture.rgb, drawing.masks[0]) for picture, drawing in both]


COLOURS = np.stack([pixels(number) for number in range(4)])


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (pixels(0)[:, :, 0], truth(0)),
        (pixels(0)[:, :, :1], truth(0)[:, :, None]),
        (pixels(0), truth(0)),
        (COLOURS[..., 0], labels(0)),
        (COLOURS[..., :1], labels(0)[..., None]),
        (COLOURS, labels(0) * 255),
        (COLOURS, labels(0).astype(np.float32)),
    ],
    ids=["H W", "H W 1", "H W 3", "N H W", "N H W 1", "N H W 3", "float mask"],
)
def test_shapes_and_their_masks(image: np.ndarray, mask: np.ndarray, tmp_path: Path) -> None:
    found = read(source_of(tmp_path, image, mask))
    expected = image.reshape(-1, *SIZE, 3 if image.shape[-1] == 3 else 1)
    assert len(found) == len(expected)
    for (rgb, drawn), picture, truth_of_it in zip(found, expected, mask.reshape(-1, *SIZE), strict=True):
        np.testing.assert_array_equal(rgb, np.broadcast_to(picture, rgb.shape))
        np.testing.assert_array_equal(drawn, truth_of_it > 0)


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.float64, np.uint16])
def test_other_numbers_are_stretched_by_the_whole_file(kind: type, tmp_path: Path) -> None:
    values = (intensities(0) + (1000 if kind is np.uint16 else 0)).astype(kind)
    low, high = np.percentile(values.astype(float), [0.5, 99.5])
    for (rgb, _), picture in zip(read(source_of(tmp_path, values, labels(0))), values, strict=True):
        np.testing.assert_array_equal(rgb[:, :, 0], np.rint(np.clip((picture - low) / (high - low), 0, 1) * 255))


@pytest.mark.parametrize(
    "stored", [COLOURS / 255, (COLOURS / 255).astype(np.float32), COLOURS.astype(np.float32), COLOURS.astype(np.int64)]
)
def test_colours_of_a_picture_stay_in_whatever_numbers(stored: np.ndarray, tmp_path: Path) -> None:
    """Tutorials divide by 255; each colour stretched by itself would be another one than in the PNG."""
    red = stored * np.array([1, 0.5, 0.25]) if stored.dtype.kind == "f" and stored.max() <= 1 else stored
    expected = COLOURS * np.array([1, 0.5, 0.25]) if red is not stored else COLOURS
    for (rgb, _), picture in zip(read(source_of(tmp_path, red, labels(0))), expected, strict=True):
        assert np.abs(rgb - picture).max() <= 0.5 + 1e-3


def test_reflectances_are_stretched(tmp_path: Path) -> None:
    values = COLOURS / 1000
    low, high = np.percentile(values, [0.5, 99.5], axis=(0, 1, 2))
    (rgb, _), *_ = read(source_of(tmp_path, values, labels(0)))
    np.testing.assert_array_equal(rgb, np.rint(np.clip((values[0] - low) / (high - low), 0, 1) * 255))


def test_what_is_no_number_is_black(tmp_path: Path) -> None:
    values = intensities(0).astype(np.float32)
    values[0, :5], values[1, 0, 0] = np.nan, np.inf
    found = read(source_of(tmp_path, values, labels(0)))
    assert not found[0][0][:5].any()
    assert found[1][0][0, 0, 0] == 255


def test_bands_reorder_colours(tmp_path: Path) -> None:
    rgb, _ = read(source_of(tmp_path, pixels(0), truth(0)), bands=(3, 2, 1))[0]
    np.testing.assert_array_equal(rgb, pixels(0)[:, :, ::-1])


@pytest.mark.parametrize("bands", [3, 4, 13])
@pytest.mark.parametrize("axis", [0, 2])
def test_the_mask_tells_which_axis_holds_bands(bands: int, axis: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*SIZE, bands), dtype=np.uint8)
    source = source_of(tmp_path, np.moveaxis(values, 2, axis), truth(0))
    np.testing.assert_array_equal(read(source)[0][0], values[:, :, :3])
    np.testing.assert_array_equal(read(source, bands=(2,))[0][0], np.repeat(values[:, :, 1:2], 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_torch_have_their_colours_first(channels: int, tmp_path: Path) -> None:
    stored = np.moveaxis(COLOURS, 3, 1)[:, :channels]
    found = read(source_of(tmp_path, stored, labels(0)[:, None]))
    for number in range(len(COLOURS)):
        np.testing.assert_array_equal(
            found[number][0], COLOURS[number][:, :, [0, 1, 2] if channels == 3 else [0, 0, 0]]
        )
        np.testing.assert_array_equal(found[number][1], labels(0)[number] == 1)


@pytest.mark.parametrize(("size", "told"), [(SIZE, "slices"), ((24, 24), "slices"), ((24, 14), "np.moveaxis")])
def test_volumes_whose_slices_are_last_are_not_cut_across(size: tuple[int, int], told: str, tmp_path: Path) -> None:
    """nibabel and MATLAB store them so; across they would look like stripes. What is a guess is told."""
    values = np.random.default_rng(0).integers(0, 256, (8, *size), dtype=np.uint8)
    drawn = np.zeros(values.shape, np.uint8)
    drawn[1:7, 5:9, 6:12] = 1
    last = told == "slices"
    source = source_of(
        tmp_path, np.moveaxis(values, 0, -1) if last else values, np.moveaxis(drawn, 0, -1) if last else drawn
    )
    assert any(told in note for note in discover(source).notes)
    for (rgb, mask), picture, expected in zip(read(source), values, drawn, strict=False):
        np.testing.assert_array_equal(rgb[:, :, 0], picture)
        np.testing.assert_array_equal(mask, expected == 1)


def test_arrays_of_an_archive_are_told_by_their_names(tmp_path: Path) -> None:
    """One file may hold both; a list then names it twice."""
    for number in range(3):
        np.savez(tmp_path / f"a{number}.npz", imgs=COLOURS, gts=labels(number), spacing=np.ones(3))
    rows = "".join(f"a{number}.npz,a{number}.npz\n" for number in range(3))
    (tmp_path / "list.csv").write_text("image,label\n" + rows)
    found = read(tmp_path / "list.csv")
    np.testing.assert_array_equal(found[2][0], COLOURS[2])
    np.testing.assert_array_equal(found[2][1], labels(0)[2] == 1)


def test_a_mask_of_an_ordinary_picture(tmp_path: Path) -> None:
    source = source_of(tmp_path, truth(0), np.where(truth(0), 255, 1))
    for number in range(3):
        (source / f"images/a{number}.npy").unlink()
        (source / f"images/a{number}.png").write_bytes(encoded(pixels(number)))
    pairs = sorted(discover(source).pairs, key=lambda pair: pair.row)
    assert pairs[0].image.name == "a0.png"
    content = open_pair(pairs[0])[0]
    assert content.image == encoded(pixels(0))
    np.testing.assert_array_equal(content.mask, truth(0))


def test_objects_of_true_and_false_are_regions(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[2:5, 2:5] = mask[10:14, 20:25] = True
    options = ReadOptions(choice=MaskChoice(instances=True))
    pair = discover(source_of(tmp_path, pixels(0), mask), options).pairs[0]
    assert [int(content.mask.sum()) for content in open_pair(pair, options.choice)] == [9, 20]


def test_a_blank_mask_of_a_picture_of_its_own_is_still_an_error(tmp_path: Path) -> None:
    """Only slices and tiles are left out: nobody would see that a whole picture is gone."""
    source = source_of(tmp_path, pixels(0), truth(0) & False)
    assert len(discover(source).pairs) == 3


# ------------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("image", "mask", "words"),
    [
        (np.zeros((2, 3, 4, 5, 6)), truth(0), "a0.npy: the image has the shape 2 x 3 x 4 x 5 x 6; expected (H, W), "),
        (np.zeros(7), truth(0), "the image has the shape 7; "),
        (np.zeros((*SIZE, 5, 7)), truth(0), "the image has the shape 24 x 32 x 5 x 7; "),
        (pixels(0), np.zeros((2, 3, 4, 5)), "the mask has the shape 2 x 3 x 4 x 5; expected (H, W) or (N, H, W)"),
        (pixels(0), truth(0)[:9], "the mask is 32 x 9 px, its image a0.npy 32 x 24; export the mask"),
        (COLOURS, labels(0)[:3], "the mask is 32 x 24 x 3 px, its image a0.npy 32 x 24 x 4; export"),
        (pixels(0), np.dstack([truth(0)] * 3), "the mask is 32 x 24 x 3 px, its image a0.npy 32 x 24 x 1"),
        (pixels(0).astype(complex), truth(0), "the image holds complex128, not plain numbers; save it as uint8"),
        (np.full(SIZE, "x"), truth(0), "the image holds <U1, not plain numbers"),
        (pixels(0), np.arange(24 * 32).reshape(SIZE), "the mask has 768 different values"),
    ],
)
def test_wrong_shapes_and_kinds_are_named(image: np.ndarray, mask: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        discover(source_of(tmp_path, image, mask))
    assert words in str(caught.value)


def test_a_measured_quantity_is_no_mask(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((90, *SIZE))
    with pytest.raises(DataError, match="more than 65,536 different values, so it is no mask"):
        discover(source_of(tmp_path, np.zeros((90, *SIZE), np.uint8), mask))


def saved_with_pickle(path: Path, content: object) -> None:
    np.save(path, np.array([content, None], dtype=object), allow_pickle=True)


def archived_with_pickle(path: Path, content: object) -> None:
    np.savez(path, np.array([content, None], dtype=object))


@pytest.mark.parametrize(("save", "ending"), [(saved_with_pickle, "npy"), (archived_with_pickle, "npz")])
def test_pickled_objects_are_never_loaded(save: object, ending: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a0\.{ending}: the image holds Python objects .pickle., which are never"):
        discover(source_of(tmp_path, pixels(0), truth(0), save, ending))


def test_other_files_are_not_taken_for_arrays(tmp_path: Path) -> None:
    source = source_of(tmp_path, COLOURS, labels(0))
    (source / "images/a0.npy").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"a0\.npy: the image is no file of NumPy .*; write it with np\.save"):
        discover(source)


def test_an_archive_of_unknown_names_is_refused(tmp_path: Path) -> None:
    def save(path: Path, content: np.ndarray) -> None:
        np.savez(path, one=content, two=content)

    with pytest.raises(DataError, match=r"a0\.npz: which of the arrays one, two is the image\? Name it 'image'"):
        discover(source_of(tmp_path, pixels(0), truth(0), save, "npz"))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
@pytest.mark.parametrize(("save", "ending"), [(np.save, "npy"), (np.savez_compressed, "npz")])
def test_files_cut_short_are_refused(save: object, ending: str, share: float, tmp_path: Path) -> None:
    source = source_of(tmp_path, COLOURS, labels(0), save, ending)
    path = source / f"images/a1.{ending}"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(
        (DataError, Unusable), match=rf"a1\.{ending}: .*damaged or cut short.*; copy or export it again"
    ):
        open_all(source)


def test_a_header_that_claims_everything_costs_nothing(tmp_path: Path) -> None:
    source = source_of(tmp_path, COLOURS, labels(0))
    with (source / "images/a1.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 10**5, 10**4)}
        )
    with pytest.raises(DataError, match=r"a1\.npy: "):
        discover(source)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    source_of(tmp_path, COLOURS, labels(0))
    rows = "images/a0.npy,masks/a0.npy\nimages/a1.npy,masks/b1.npy\nimages/b2.npz,masks/a2.npy\n"
    (tmp_path / "list.csv").write_text("image,label\n" + rows)
    with pytest.raises(DataError) as caught:
        discover(tmp_path / "list.csv")
    assert "list.csv:3: " in str(caught.value)
    assert "b1.npy: mask: no such file; add it or remove the row" in str(caught.value)
    assert "b2.npz: image: no such file" in str(caught.value)
