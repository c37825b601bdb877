from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from infosam.data.rgb import EXIF_ORIENTATION, to_rgb, upright


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    rgb = to_rgb(Image.new(mode, (5, 3)))
    assert rgb.shape == (3, 5, 3)
    assert rgb.dtype == np.uint8


def test_rgb_is_unchanged() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(Image.fromarray(noise)), noise)


def test_transparency_lies_over_black() -> None:
    image = Image.new("RGBA", (3, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    image.putpixel((2, 0), (200, 100, 50, 128))
    assert to_rgb(image)[0].tolist() == [[200, 100, 50], [0, 0, 0], [100, 50, 25]]


def test_a_transparent_palette_colour_becomes_black() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.info["transparency"] = 0
    assert to_rgb(image)[0].tolist() == [[0, 0, 0], [0, 255, 0]]


def test_16_bit_is_stretched_and_8_bit_in_16_is_not() -> None:
    deep = Image.fromarray(np.array([[1000, 2000, 3000]], np.uint16))
    assert to_rgb(deep)[0, :, 0].tolist() == [0, 128, 255]
    flat = Image.fromarray(np.array([[3, 200]], np.uint16))
    assert to_rgb(flat)[0, :, 0].tolist() == [3, 200]
    assert not to_rgb(Image.fromarray(np.full((1, 2), 9000, np.uint16))).any()


def test_floats_are_stretched_and_gaps_survive() -> None:
    image = Image.fromarray(np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32))
    assert to_rgb(image)[0, :, 0].tolist() == [0, 128, 255, 128]


def test_only_a_turned_picture_is_copied() -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert upright(image) is image
    image.getexif()[EXIF_ORIENTATION] = 6
    assert np.asarray(upright(image)).tolist() == [[3, 0], [4, 1], [5, 2]]


def test_importing_and_checking_load_no_torch() -> None:
    """It takes seconds and hundreds of MiB, in each process that opens pictures."""
    program = (
        "import sys, infosam.data.store, infosam.data.check.run, cluster.importing; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
