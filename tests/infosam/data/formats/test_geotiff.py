from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from small_sources import SIZE, coco, encoded, pixels, truth, write_pictures
from small_volumes import open_all, scene, write_tiff

from infosam.data.formats.geotiff import is_scene
from infosam.data.manifest import discover
from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.data.pixels import Unusable, open_both, open_pair
from infosam.data.rgb import to_rgb
from infosam.errors import DataError

HIGH, WIDE = 50, 70


def source_of(folder: Path, bands: np.ndarray, mask: np.ndarray | None = None, amount: int = 3, **more: object) -> Path:
    drawn = np.zeros((HIGH, WIDE), np.uint8) if mask is None else mask
    if mask is None:
        drawn[5:20, 30:60] = 1
    for number in range(amount):
        write_tiff(folder / f"images/s{number}.tif", bands, (0, 0), **more)
        write_tiff(folder / f"masks/s{number}.tif", drawn[None], (0, 0))
    return folder


def shown(source: Path, **parts: object) -> np.ndarray:
    found = discover(source, ReadOptions(parts=PartOptions(**parts)))
    return open_both(sorted(found.pairs, key=lambda pair: pair.row)[0])[0].rgb


def stretched(band: np.ndarray) -> np.ndarray:
    low, high = np.percentile(band.astype(float), [0.5, 99.5])
    return np.rint(np.clip((band - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(("bands", "expected"), [((), (1, 2, 3)), ((4, 3, 2), (4, 3, 2)), ((5,), (5, 5, 5))])
def test_bands_are_chosen_and_each_is_stretched_by_the_whole_scene(
    bands: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path
) -> None:
    values = scene(HIGH, WIDE, bands=6)
    rgb = shown(source_of(tmp_path, values), bands=bands)
    for channel, band in enumerate(expected):
        np.testing.assert_array_equal(rgb[:, :, channel], stretched(values[band - 1]))


def test_bands_that_nobody_chose_are_told(tmp_path: Path) -> None:
    source = source_of(tmp_path, scene(HIGH, WIDE, bands=13))
    told = "shown: bands 1, 2, 3 of 13; --bands chooses"
    assert told in discover(source).notes
    assert told not in discover(source, ReadOptions(parts=PartOptions(bands=(4, 3, 2)))).notes


def test_colours_that_the_file_names_are_taken(tmp_path: Path) -> None:
    values = scene(HIGH, WIDE, bands=3)
    np.testing.assert_array_equal(
        shown(source_of(tmp_path, values, photometric="RGB")), np.dstack([stretched(band) for band in values])
    )


def test_a_window_is_the_same_for_all_bands(tmp_path: Path) -> None:
    values = scene(HIGH, WIDE)
    rgb = shown(source_of(tmp_path, values), window=(1000.0, 1000.0))
    expected = np.rint(np.clip((np.moveaxis(values[:3], 0, 2) - 500.0) / 1000, 0, 1) * 255)
    np.testing.assert_array_equal(rgb, expected.astype(np.uint8))


def test_many_8_bit_bands_keep_their_values(tmp_path: Path) -> None:
    values = (scene(HIGH, WIDE, bands=7) % 256).astype(np.uint8)
    np.testing.assert_array_equal(shown(source_of(tmp_path, values), bands=(7, 1, 2)), np.dstack(values[[6, 0, 1]]))


def test_pixels_without_data_are_black_and_do_not_count(tmp_path: Path) -> None:
    values = scene(HIGH, WIDE, bands=5).astype(np.float32)
    inside = stretched(values[0, 10:])
    values[:, :10] = -9999
    rgb = shown(source_of(tmp_path, values, nodata=-9999.0))
    assert not rgb[:10].any()
    np.testing.assert_array_equal(rgb[10:, :, 0], inside)


def test_tiles_lie_where_their_names_say(tmp_path: Path) -> None:
    mask = np.zeros((HIGH, WIDE), np.uint8)
    mask[40, 65] = 1
    found = discover(source_of(tmp_path, scene(HIGH, WIDE), mask), ReadOptions(parts=PartOptions(tile=32, overlap=8)))
    assert {pair.image.name for pair in found.pairs} == {f"s{n}_y18_x38.png" for n in range(3)}
    drawn = open_pair(found.pairs[0])[0].mask
    assert np.argwhere(drawn).tolist() == [[40 - 18, 65 - 38]]
    assert {pair.group for pair in found.pairs} == {f"images/s{n}" for n in range(3)}


def test_what_values_mean_is_decided_on_the_whole_mask(tmp_path: Path) -> None:
    """With 1 as background a tile that holds nothing else is empty, not full."""
    mask = np.ones((HIGH, WIDE), np.uint8)
    mask[:10, :10] = 255
    source = source_of(tmp_path, scene(HIGH, WIDE), mask)
    found = discover(source, ReadOptions(parts=PartOptions(tile=25, slices="all"))).pairs
    areas = sorted(int(open_pair(pair)[0].mask.sum()) for pair in found)
    assert areas == [0] * (len(found) - 3) + [100] * 3


def test_classes_and_objects_of_a_label_map_work_on_tiles(tmp_path: Path) -> None:
    mask = np.zeros((HIGH, WIDE), np.uint8)
    mask[2:6, 2:6], mask[10:12, 2:6], mask[30:40, 40:60] = 1, 1, 2
    source = source_of(tmp_path, scene(HIGH, WIDE), mask)
    options = ReadOptions(choice=MaskChoice(classes=("2",)), parts=PartOptions(tile=25))
    found = discover(source, options)
    assert (
        sum(int(open_pair(pair, options.choice)[0].mask.sum()) for pair in found.pairs) == 3 * 250
    )  # 5 columns lie in two tiles
    singly = ReadOptions(choice=MaskChoice(instances=True), parts=PartOptions(tile=25))
    contents = [open_pair(pair, singly.choice) for pair in discover(source, singly).pairs if "y0_x0" in pair.image.name]
    assert [[int(one.mask.sum()) for one in parts] for parts in contents] == [[24]] * 3  # a value, not a region
    with pytest.raises(DataError, match="3 different values"):
        discover(source, ReadOptions(parts=PartOptions(tile=25)))


def test_ordinary_pictures_stay_as_they_are(tmp_path: Path) -> None:
    for number in range(3):
        for name, content in (("images", pixels(number)), ("masks", truth(number).astype(np.uint8) * 255)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(content).save(tmp_path / name / f"{number}.tif")
    pairs = sorted(discover(tmp_path).pairs, key=lambda pair: pair.row)
    content = open_pair(pairs[0])[0]
    assert content.image == (tmp_path / "images/0.tif").read_bytes()
    assert [pair.image.name for pair in pairs] == ["0.tif", "1.tif", "2.tif"]
    grey = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE)
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    assert not is_scene(tmp_path / "grey.tif")
    assert is_scene(write_tiff(tmp_path / "deep.tif", scene(8, 8, bands=3)))


def test_any_picture_can_be_cut_with_its_mask(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    pairs = discover(tmp_path, ReadOptions(parts=PartOptions(tile=16))).pairs
    for pair in pairs:
        number = int(pair.image.parent.stem)
        top, left = (int(word[1:]) for word in pair.image.stem.split("_")[1:])
        picture, drawing = open_both(pair)
        np.testing.assert_array_equal(picture.rgb, pixels(number)[top : top + 16, left : left + 16])
        np.testing.assert_array_equal(drawing.masks[0], truth(number)[top : top + 16, left : left + 16])


def test_shapes_of_coco_are_cut_too(tmp_path: Path) -> None:
    pairs = discover(coco(tmp_path / "set"), ReadOptions(parts=PartOptions(tile=16))).pairs
    assert sum(int(open_pair(pair)[0].mask.sum()) for pair in pairs if "0.png/" in pair.image.as_posix()) == (
        truth(0)[:16].sum() + truth(0)[8:, :].sum()
    )


def test_a_picture_of_colours_is_a_mask_of_a_scene(tmp_path: Path) -> None:
    source_of(tmp_path, scene(HIGH, WIDE))
    drawn = np.zeros((HIGH, WIDE, 3), np.uint8)
    drawn[3:9, 50:60] = (255, 0, 0)
    for number in range(3):
        (tmp_path / f"masks/s{number}.tif").unlink()
        (tmp_path / f"masks/s{number}.png").write_bytes(encoded(drawn))
    options = ReadOptions(choice=MaskChoice(classes=("#ff0000",)), parts=PartOptions(tile=40))
    found = discover(tmp_path, options).pairs
    assert {int(open_pair(pair, options.choice)[0].mask.sum()) for pair in found} == {60}


def turned() -> Image.Image:
    picture = Image.fromarray(pixels(0)[:, :, 0])
    picture.getexif()[0x0112] = 3
    return picture


ODD_PICTURES = {
    "palette": lambda: Image.fromarray(pixels(0)).quantize(20),
    "print": lambda: Image.fromarray(pixels(0)).convert("CMYK"),
    "transparent": lambda: Image.fromarray(np.dstack([pixels(0), pixels(1)[:, :, 0]])),
    "turned": turned,
    "colours": lambda: Image.fromarray(pixels(0)),
    "grey": lambda: Image.fromarray(pixels(0)[:, :, 0]),
    "black and white": lambda: Image.fromarray(truth(0)),
}


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_tiles_of_an_ordinary_tiff_are_parts_of_what_is_seen_whole(name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    picture = ODD_PICTURES[name]()
    for number in range(3):
        picture.save(tmp_path / f"images/{number}.tif", exif=picture.getexif())
        (tmp_path / f"masks/{number}.png").write_bytes(encoded(truth(0)))
    expected = to_rgb(Image.open(tmp_path / "images/0.tif"))
    for pair in discover(tmp_path, ReadOptions(parts=PartOptions(tile=16, slices="all"))).pairs:
        top, left = (int(word[1:]) for word in pair.image.stem.split("_")[1:])
        np.testing.assert_array_equal(open_both(pair)[0].rgb, expected[top : top + 16, left : left + 16])


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_ordinary_tiff_masks_mean_the_same_on_tiles(mode: str, tmp_path: Path) -> None:
    write_pictures(tmp_path, mask=None)
    (tmp_path / "masks").mkdir()
    mask = Image.fromarray(truth(0).astype(np.uint8) * (255 if mode == "1" else 1)).convert("L")
    palette = Image.fromarray(np.asarray(mask), mode="P")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    for number in range(6):
        (palette if mode == "P" else mask.convert(mode)).save(tmp_path / f"masks/{number}.tif")
    pairs = discover(tmp_path, ReadOptions(parts=PartOptions(tile=16, slices="all"))).pairs
    for pair in pairs:
        top, left = (int(word[1:]) for word in pair.image.stem.split("_")[1:])
        np.testing.assert_array_equal(open_both(pair)[1].masks[0], truth(0)[top : top + 16, left : left + 16])


# ------------------------------------------------------------------------------------------------------------ refused


def test_a_band_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s0\.tif: no band 9, it has 4 bands; correct --bands"):
        shown(source_of(tmp_path, scene(HIGH, WIDE)), bands=(9, 1, 2))


def test_a_mask_of_another_size_or_place_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, scene(HIGH, WIDE))
    write_tiff(source / "masks/s0.tif", np.ones((1, HIGH, WIDE - 1), np.uint8))
    write_tiff(source / "masks/s1.tif", np.ones((1, HIGH, WIDE), np.uint8), (10, 0))
    with pytest.raises(DataError) as caught:
        discover(source)
    assert "the mask is 69 x 50 px, its image s0.tif 70 x 50" in str(caught.value)
    assert "the mask lies elsewhere than s1.tif; save it on the grid" in str(caught.value)


def test_a_mask_of_many_bands_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, scene(HIGH, WIDE))
    write_tiff(source / "masks/s2.tif", scene(HIGH, WIDE), (0, 0))
    with pytest.raises(DataError, match=r"s2\.tif: the mask has 4 bands; save it with one"):
        discover(source)


def test_a_scene_as_its_own_mask_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, scene(HIGH, WIDE))
    write_tiff(source / "masks/s2.tif", scene(HIGH, WIDE)[:1], (0, 0))
    with pytest.raises(DataError, match=r"s2\.tif: the mask has \d+ different values"):
        discover(source)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_file_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    source = source_of(tmp_path, scene(HIGH, WIDE))
    content = (source / "images/s1.tif").read_bytes()
    (source / "images/s1.tif").write_bytes(content[: int(len(content) * share)])
    with pytest.raises((DataError, Unusable), match=r"s1\.tif: (the )?image") as caught:
        open_all(source)
    assert "copy" in str(caught.value) or "save it as PNG" in str(caught.value)


def test_a_huge_scene_must_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    source = source_of(tmp_path, scene(HIGH, WIDE))
    with pytest.raises(DataError, match="70 x 50 px, more than 0 million; cut it into tiles, such as --tile"):
        discover(source)
    assert len(discover(source, ReadOptions(parts=PartOptions(tile=25, slices="all"))).pairs) == 3 * 6


def test_complex_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="complex values are not read; save the amplitude"):
        discover(source_of(tmp_path, scene(HIGH, WIDE).astype(np.complex64)))


def drawn_on(value: float = 1, hole: float = 0, kind: type[np.generic] = np.uint8) -> np.ndarray:
    """An object, and a strip at the left of another value."""
    mask = np.zeros((HIGH, WIDE), kind)
    mask[5:20, 30:60] = value
    mask[:, :6] = hole
    return mask


def heights(nothing: int, kind: type[np.generic]) -> np.ndarray:
    values = (scene(HIGH, WIDE, bands=1)[0] % 600).astype(kind)
    values[:, :6] = nothing
    return values


@pytest.mark.parametrize(("kind", "said"), [(np.int16, True), (np.float32, True), (np.int16, False)])
def test_missing_heights_do_not_make_all_others_white(kind: type[np.generic], said: bool, tmp_path: Path) -> None:
    values = heights(-9999, kind)
    rgb = shown(source_of(tmp_path, values[None], **({"nodata": -9999} if said else {})))[:, :, 0]
    assert not rgb[:, :6].any()
    np.testing.assert_array_equal(rgb[:, 6:], stretched(values[:, 6:]))


def test_signed_bytes_are_not_read_as_unsigned_ones(tmp_path: Path) -> None:
    values = (scene(HIGH, WIDE, bands=1)[0] % 120 - 60).astype(np.int8)
    np.testing.assert_array_equal(shown(source_of(tmp_path, values[None]))[:, :, 0], stretched(values))


def test_the_mask_inside_a_scene_says_where_nothing_is(tmp_path: Path) -> None:
    values = scene(HIGH, WIDE)
    source = source_of(tmp_path, values)
    for path in (source / "images").iterdir():
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask((drawn_on(hole=2) != 2).astype(np.uint8) * 255)
    assert not shown(source)[:, :6].any()
    np.testing.assert_array_equal(shown(source)[:, 6:, 0], stretched(values[0][:, 6:]))


@pytest.mark.parametrize("bands", [1, 3])  # of 8 bits: an ordinary picture, and one with another band
@pytest.mark.parametrize(("background", "hole"), [(0, 255), (255, 255), (np.nan, np.nan), (0, -9999)])
def test_what_a_mask_declares_to_be_no_data_is_never_the_object(
    background: float, hole: float, bands: int, tmp_path: Path
) -> None:
    mask = drawn_on(hole=hole, kind=np.uint8 if hole == 255 else np.float32)
    mask[mask == 0] = background
    source = tmp_path
    for number in range(3):
        content = (scene(HIGH, WIDE, bands=bands, seed=number) % 256).astype(np.uint8)
        write_tiff(source / f"images/s{number}.tif", content, photometric="RGB" if bands == 3 else "MINISBLACK")
        write_tiff(source / f"masks/s{number}.tif", mask[None], nodata=hole)
    found = discover(source)
    assert "pixels that a mask declares to be without data count as background" in found.notes
    np.testing.assert_array_equal(open_both(found.pairs[0])[1].masks[0], mask == 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("moved", [{"crs": "EPSG:32633"}, {"transform": rasterio.Affine(10, 0, 500, 0, -10, 0)}])
def test_masks_of_another_place_are_refused_for_scenes_and_for_ordinary_pictures(
    kind: type[np.generic], moved: dict[str, object], tmp_path: Path
) -> None:
    here = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    for number in range(3):
        content = (scene(HIGH, WIDE, bands=3, seed=number) % 256).astype(kind)
        write_tiff(tmp_path / f"images/s{number}.tif", content, photometric="RGB", **here)
        write_tiff(tmp_path / f"masks/s{number}.tif", drawn_on()[None], **here)
    discover(tmp_path)
    write_tiff(tmp_path / "masks/s1.tif", drawn_on()[None], **(here | moved))
    with pytest.raises(DataError, match=r"s1\.tif: by their own coordinates the mask lies elsewhere"):
        discover(tmp_path)


def test_scenes_of_many_bands_are_opened_without_a_line_from_pillow_for_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown(source_of(tmp_path, scene(HIGH, WIDE, bands=13)), tile=32)
    assert caplog.text == ""
