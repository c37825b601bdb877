from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infosam.data.pairs import Listed, MaskChoice
from infosam.data.pixels import Unusable, open_drawing, read_pair
from infosam.data.rgb import EXIF_ORIENTATION

HALF = np.zeros((6, 8), np.uint8)
HALF[:, 4:] = 1


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (8, 6), (10, 20, 30)).save(path)
    return path


def palette_mask() -> Image.Image:
    mask = Image.fromarray(HALF, mode="P")
    mask.putpalette([200, 200, 200, 10, 0, 0])  # the object is darker than the background: only the index counts
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(HALF),
        Image.fromarray(HALF * 255),
        Image.fromarray(HALF * 200),
        Image.fromarray(HALF * 253 + 1),
        Image.fromarray(HALF.astype(bool)),
        Image.fromarray(HALF.astype(np.uint16) * 65535),
        Image.fromarray(np.repeat(HALF[:, :, None] * 255, 3, axis=2)),
        Image.fromarray(np.stack([HALF * 255, HALF * 0, HALF * 0], axis=2)),
        Image.fromarray(np.stack([HALF * 255] * 3 + [HALF * 0 + 255], axis=2)),
        Image.fromarray(np.stack([HALF * 255, HALF * 0 + 255], axis=2), mode="LA"),
        palette_mask(),
    ],
    ids=["0-1", "0-255", "0-200", "1-254", "bilevel", "16-bit", "grey-rgb", "red-rgb", "rgba", "la", "palette"],
)
def test_masks_of_two_values_are_read_in_any_mode(tmp_path: Path, image: Path, mask: Image.Image) -> None:
    mask.save(tmp_path / "mask.png")
    content = read_pair(image, tmp_path / "mask.png")
    np.testing.assert_array_equal(content.mask, HALF == 1)
    assert content.fg_fraction == 0.5
    stored = np.asarray(Image.open(io.BytesIO(content.mask_png())))
    np.testing.assert_array_equal(stored, HALF * 255)


@pytest.mark.parametrize(("value", "share"), [(0, 0.0), (1, 1.0), (255, 1.0)])
def test_a_mask_of_one_value_is_empty_or_full(tmp_path: Path, image: Path, value: int, share: float) -> None:
    Image.new("L", (8, 6), value).save(tmp_path / "mask.png")
    assert read_pair(image, tmp_path / "mask.png").fg_fraction == share


def test_the_image_file_is_kept_byte_by_byte(tmp_path: Path, image: Path) -> None:
    Image.fromarray(HALF).save(tmp_path / "mask.png")
    content = read_pair(image, tmp_path / "mask.png")
    assert content.image == content.source_image == image.read_bytes()
    assert (content.width, content.height) == (8, 6)


def save_rotated(path: Path) -> None:
    """A picture stored 8 x 6, shown 6 x 8 after the camera's note to turn it by 90 degrees."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(path, exif=exif)


def test_an_exif_rotation_is_applied(tmp_path: Path) -> None:
    save_rotated(tmp_path / "photo.png")
    Image.fromarray(HALF.T.copy()).save(tmp_path / "mask.png")
    content = read_pair(tmp_path / "photo.png", tmp_path / "mask.png")
    upright = Image.open(io.BytesIO(content.image))
    assert upright.size == (6, 8)
    assert upright.getexif().get(EXIF_ORIENTATION, 1) == 1
    assert upright.getpixel((5, 0)) == (255, 255, 255)


def test_a_mask_of_the_unrotated_picture_is_refused_with_the_reason(tmp_path: Path) -> None:
    save_rotated(tmp_path / "photo.png")
    Image.fromarray(HALF).save(tmp_path / "mask.png")
    with pytest.raises(Unusable, match="drawn on the unrotated picture"):
        read_pair(tmp_path / "photo.png", tmp_path / "mask.png")


def test_a_jpeg_mask_is_recognised_by_its_smear(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[9:50, 13:51] = 255
    Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=90)
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    with pytest.raises(Unusable, match="smeared by JPEG: threshold it at 127"):
        read_pair(tmp_path / "photo.png", tmp_path / "mask.jpg")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_class_of_a_smeared_mask_is_refused(ending: str, tmp_path: Path) -> None:
    """255 alone would be an object with holes."""
    mask = np.zeros((64, 64), np.uint8)
    mask[9:50, 13:51] = 255
    Image.fromarray(mask).save(tmp_path / "mask.jpg", quality=90)
    Image.open(tmp_path / "mask.jpg").save(tmp_path / f"mask.{ending}")
    pair = Listed(image_name="a.png", mask_name=str(tmp_path / f"mask.{ending}"), split=None, row="a")
    with pytest.raises(Unusable, match="JPEG"):
        open_drawing(pair, MaskChoice(classes=("255",)))


def test_a_label_map_is_refused(tmp_path: Path, image: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3).save(tmp_path / "mask.png")
    with pytest.raises(Unusable, match=r"3 different values \(0, 1, 2\).*one mask per object or class"):
        read_pair(image, tmp_path / "mask.png")


def test_two_values_without_background_are_a_question(tmp_path: Path, image: Path) -> None:
    """1 may be the object and 2 the background, as in the trimaps of Oxford's pets."""
    Image.fromarray(HALF + 1).save(tmp_path / "mask.png")
    with pytest.raises(Unusable, match=r"values 1 and 2 and no 0.*--class 2 or --class 1"):
        read_pair(image, tmp_path / "mask.png")
    colours = np.stack([HALF * 90 + 9] * 2 + [HALF], axis=2)
    Image.fromarray(colours).save(tmp_path / "mask.png")
    with pytest.raises(Unusable, match="--class '#636301' or --class '#090900'"):
        read_pair(image, tmp_path / "mask.png")


@pytest.mark.parametrize("ending", ["tif", "gif", "png", "webp"])
def test_a_file_of_several_pictures_is_refused_not_cut_to_the_first(ending: str, tmp_path: Path, image: Path) -> None:
    frames = [Image.fromarray(HALF * 255), Image.fromarray((1 - HALF) * 255)]
    frames[0].save(tmp_path / f"mask.{ending}", save_all=True, append_images=frames[1:])
    for pair in ((image, tmp_path / f"mask.{ending}"), (tmp_path / f"mask.{ending}", image)):
        with pytest.raises(Unusable, match="holds several pictures"):
            read_pair(*pair)


def test_smaller_copies_and_second_views_are_no_other_pictures(tmp_path: Path) -> None:
    photo = Image.fromarray(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3))
    photo.save(tmp_path / "a.tif", save_all=True, append_images=[photo.resize((4, 3))])
    photo.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[photo])
    Image.fromarray(HALF).save(tmp_path / "mask.png")
    for name in ("a.tif", "a.jpg"):
        assert read_pair(tmp_path / name, tmp_path / "mask.png").fg_fraction == 0.5


def test_a_transparent_mask_is_refused(tmp_path: Path, image: Path) -> None:
    Image.fromarray(np.stack([HALF * 0] * 3 + [HALF * 255], axis=2)).save(tmp_path / "mask.png")
    with pytest.raises(Unusable, match="transparent pixels"):
        read_pair(image, tmp_path / "mask.png")


def test_both_files_of_a_pair_are_reported(tmp_path: Path) -> None:
    (tmp_path / "photo.jpeg").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(Unusable) as caught:
        read_pair(tmp_path / "photo.jpg", tmp_path / "folder.png")
    assert "photo.jpeg is there, correct the name" in str(caught.value)
    assert "is a folder, not a file" in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path, image: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"")
    with pytest.raises(Unusable, match=r"mask.png: mask: the file is empty \(0 bytes\)"):
        read_pair(image, tmp_path / "mask.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_a_file_cut_short_is_refused(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = tmp_path / f"photo.{ending}"
    Image.fromarray(noise).save(whole)
    Image.new("L", (64, 64), 255).save(tmp_path / "mask.png")
    read_pair(whole, tmp_path / "mask.png")
    whole.write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(Unusable, match=r"copy or export it again|known format"):
        read_pair(whole, tmp_path / "mask.png")


def test_a_decompression_bomb_is_refused(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Unusable, match="cut it into tiles"):
        read_pair(image, image)
