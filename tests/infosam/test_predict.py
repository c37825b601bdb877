"""From pictures to masks at their own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infosam.config import ModelConfig
from infosam.errors import DataError, WeightsError
from infosam.predict import Predictor, find_images, read_image
from infosam.prompt_files import ImagePrompt


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Plain vit_nano on its own canvas."""
    return Predictor(ModelConfig(), device="cpu")


@pytest.mark.parametrize("size", [(40, 60), (300, 50), (192, 192), (7, 5)])
def test_a_mask_has_the_size_of_its_image(predictor: Predictor, size: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    for prompt in (None, ImagePrompt(box=(1, 1, 3, 4)), ImagePrompt(points=((2, 2, 1), (0, 0, 0)))):
        mask = predictor.predict(rgb, prompt)
        assert mask.shape == size
        assert mask.dtype == np.bool_


def test_nothing_said_is_the_frame_as_box(predictor: Predictor) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    framed = predictor.predict(rgb, ImagePrompt(box=(0, 0, 59, 39)))
    assert (predictor.predict(rgb) == framed).all()


def test_a_mask_is_where_the_odds_are_even_or_better(predictor: Predictor) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    logits = predictor.logits(rgb)
    assert (logits.shape, logits.dtype) == ((40, 60), np.float32)
    assert (predictor.predict(rgb) == (logits > 0)).all()


def test_a_prompt_outside_is_refused(predictor: Predictor) -> None:
    with pytest.raises(DataError, match=r"\(61, 3\) lies outside the image of 60 x 40 px"):
        predictor.predict(np.zeros((40, 60, 3), np.uint8), ImagePrompt(points=((61, 3, 1),)))


def test_a_batch_is_its_images_one_by_one(predictor: Predictor) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (*size, 3), np.uint8) for size in ((40, 60), (300, 50), (192, 192), (33, 90))]
    prompts = [ImagePrompt(box=(3, 3, 30, 30)), None, ImagePrompt(points=((9, 9, 1), (80, 90, 0))), ImagePrompt()]
    masks = predictor.predict_batch(images, prompts)
    for image, prompt, mask in zip(images, prompts, masks, strict=True):
        alone = predictor.logits(image, prompt)
        assert mask.shape == image.shape[:2]
        assert ((alone > 0) == mask)[np.abs(alone) > 1e-3].all()
    assert predictor.predict_batch([]) == []


def test_a_mask_does_not_depend_on_the_others_prompts(predictor: Predictor) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    points = ImagePrompt(points=((9, 9, 1), (8, 9, 0), (50, 30, 0), (30, 30, 1)))
    with_points = predictor.predict_batch([rgb, rgb], [None, points])[0]
    with_box = predictor.predict_batch([rgb, rgb], [None, ImagePrompt(box=(1, 1, 9, 9))])[0]
    assert (with_points != with_box).mean() < 1e-3


def test_a_prompt_outside_names_its_image(predictor: Predictor) -> None:
    blank = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(DataError, match=r"prompt of image 1: \(61, 3\) lies outside the image of 60 x 40 px"):
        predictor.predict_batch([blank, blank], [None, ImagePrompt(points=((61, 3, 1),))])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        predictor.predict_batch([blank, blank], [None])


def test_without_a_bundle_there_is_no_card(predictor: Predictor) -> None:
    assert predictor.card is None
    assert predictor.canvas_px == 192


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        Predictor(ModelConfig(checkpoint=tmp_path / "none.safetensors"))


class TestFindImages:
    def test_files_and_folders_in_order(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        (folder / "deeper").mkdir(parents=True)
        for name in ("b.png", "a.JPG", "notes.txt", "deeper/c.png"):
            (folder / name).write_bytes(b"")
        single = tmp_path / "z.dat"
        single.write_bytes(b"")
        assert find_images([single, folder]) == [single, folder / "a.JPG", folder / "b.png"]

    def test_patterns(self, tmp_path: Path) -> None:
        """In quotes they reach us as they are; a name with brackets that is a file stays that file."""
        for name in ("a/x.png", "a/b/y.jpg", "a/b/notes.txt", "z[1].png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        assert find_images([tmp_path / "**" / "*.*"]) == [
            tmp_path / "a" / "b" / "y.jpg", tmp_path / "a" / "x.png", tmp_path / "z[1].png",
        ]  # fmt: skip
        assert find_images([tmp_path / "z[1].png"]) == [tmp_path / "z[1].png"]
        with pytest.raises(DataError, match="no images in"):
            find_images([tmp_path / "*.gif"])

    def test_each_once(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"")
        assert find_images([tmp_path, tmp_path / "a.png", tmp_path / "*.png"]) == [tmp_path / "a.png"]

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no images in .*; known endings: \.png, \.jpg"):
            find_images([tmp_path])
        with pytest.raises(DataError, match=r"gone\.png: no such image or folder"):
            find_images([tmp_path / "gone.png"])


class TestReadImage:
    def test_a_rotated_photograph_stands_upright(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg").shape == (20, 10, 3)

    def test_a_program_in_postscript_is_no_picture(self, tmp_path: Path) -> None:
        """Pillow would hand it to Ghostscript."""
        Image.new("RGB", (8, 8)).save(tmp_path / "a.png", format="EPS")
        with pytest.raises(DataError, match=r"a\.png: cannot be read as an image: its content is none of PNG, JPEG"):
            read_image(tmp_path / "a.png")

    @pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n and then nothing"])
    def test_no_picture(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
            read_image(tmp_path / "a.png")
