"""A user's prompts: what is read, what is refused in which words, and where it lands on the canvas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from infosam.data.prompts import box_of, box_prompt, frame_prompt
from infosam.data.transforms import prepare_mask, resized_hw
from infosam.errors import DataError
from infosam.prompt_files import ImagePrompt, check_inside, match_prompts, read_prompts, to_canvas


def written(folder: Path, content: Any, name: str = "prompts.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    return str(caught.value)


class TestJson:
    def test_boxes_and_points(self, tmp_path: Path) -> None:
        content = {
            "a.jpg": {"box": [1, 2, 30.5, 40]},
            "somewhere/b.jpg": {"points": [[5, 6, 1], [7, 8, 0]]},
            "c.jpg": {"box": [0, 0, 1, 1], "points": []},
            "d.jpg": {},
        }
        assert read_prompts(written(tmp_path, content)) == {
            "a.jpg": ImagePrompt(box=(1, 2, 30.5, 40)),
            "somewhere/b.jpg": ImagePrompt(points=((5, 6, 1), (7, 8, 0))),
            "c.jpg": ImagePrompt(box=(0, 0, 1, 1)),
            "d.jpg": ImagePrompt(),
        }

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "not valid JSON"),
            ([1], "expected a mapping of image names to prompts, found list"),
            ({"a.jpg": [1, 2, 3, 4]}, 'a.jpg: expected {"box": [...]} and / or {"points": [...]}, found [1, 2, 3, 4]'),
            ({"a.jpg": {"bbox": [1, 2, 3, 4]}}, "a.jpg: expected"),
            ({"a.jpg": {"box": [1, 2, 3]}}, "a.jpg: a box is x0, y0, x1, y1, 4 finite numbers; got [1, 2, 3]"),
            ({"a.jpg": {"box": None}}, "4 finite numbers; got None"),
            ({"a.jpg": {"box": "1234"}}, "4 finite numbers; got '1234'"),
            ({"a.jpg": {"box": {"1": 0, "2": 0, "3": 0, "4": 0}}}, "4 finite numbers"),
            ({"a.jpg": {"box": [1, 2, 3, "x"]}}, "4 finite numbers"),
            ('{"a.jpg": {"box": [1, 2, NaN, 3]}}', "4 finite numbers"),
            ({"a.jpg": {"box": [10, 2, 5, 8]}}, "has no area: x1 must be >= x0 and y1 >= y0 (corners, not width)"),
            ({"a.jpg": {"points": [[1, 2]]}}, "a point is x, y, label, 3 finite numbers; got [1, 2]"),
            ({"a.jpg": {"points": [[1, 2, 2]]}}, "the label of a point must be 1 (object) or 0 (background), got 2"),
            ({"a.jpg": {"points": [1, 2, 1]}}, "a point is x, y, label"),
            ({"a.jpg": {"points": 5}}, "points is a list of [x, y, label], found 5"),
            ({"a.jpg": {"points": None}}, "points is a list"),
            ({"": {}}, "a prompt names no image"),
        ],
    )
    def test_what_is_wrong_is_told(self, tmp_path: Path, content: Any, message: str) -> None:
        path = written(tmp_path, content)
        found = refusal(path)
        assert message in found
        assert str(path) in found


class TestCsv:
    def test_boxes(self, tmp_path: Path) -> None:
        text = "\ufeffimage,x0,y0,x1,y1,note\nimages/a.jpg,1,2,3.5,4,big\n\nb.jpg,0,0,9,9,\n"
        assert read_prompts(written(tmp_path, text, "prompts.CSV")) == {
            "images/a.jpg": ImagePrompt(box=(1, 2, 3.5, 4)),
            "b.jpg": ImagePrompt(box=(0, 0, 9, 9)),
        }

    def test_points_with_and_without_boxes(self, tmp_path: Path) -> None:
        points = "image,x,y,label\na.jpg,5,6,1\na.jpg,7,8.5,0\nb.jpg,1,1,1\n"
        assert read_prompts(written(tmp_path, points, "points.csv")) == {
            "a.jpg": ImagePrompt(points=((5, 6, 1), (7, 8.5, 0))),
            "b.jpg": ImagePrompt(points=((1, 1, 1),)),
        }
        both = "image,x0,y0,x1,y1,x,y,label\na.jpg,1,2,3,4,,,\na.jpg,,,,,2,3,1\nb.jpg,1,2,3,4,2,3,0\n"
        assert read_prompts(written(tmp_path, both, "both.csv")) == {
            "a.jpg": ImagePrompt(box=(1, 2, 3, 4), points=((2, 3, 1),)),
            "b.jpg": ImagePrompt(box=(1, 2, 3, 4), points=((2, 3, 0),)),
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "lacks the columns image, x0, y0, x1, y1; found none"),
            ("image,x,y,w,h\n", "lacks the columns x0, y0, x1, y1; found image, x, y, w, h"),
            ("image,x0,y0,x1,y1\na.jpg,1,2,3,4\nb.jpg,1,2,x,4\n", ".csv:3: a box is x0, y0, x1, y1, 4 finite numbers"),
            ("image,x0,y0,x1,y1\na.jpg,1,2,3\n", ".csv:2: a box is"),
            ("x0,y0,x1,y1,image\n1,2,3,4\n", "a prompt names no image"),
            ("image,x0,y0,x1,y1\n\n\na.jpg,5,2,3,4\n", ".csv:4: box [5.0, 2.0, 3.0, 4.0] has no area"),
            ("image,x0,y0,x1,y1\na.jpg,1,2,3,4\na.jpg,1,2,3,5\n", "a.jpg: has two boxes; an image has one"),
            ("image,x,label\na.jpg,1,1\n", "lacks the columns y; found image, x, label"),
            ("image,x,y,label\na.jpg,1,2,3\n", "the label of a point must be 1 (object) or 0 (background), got 3"),
            ("image,x0,y0,x1,y1,x,y,label\na.jpg,,,,,,,\n", ".csv:2: a box is x0, y0, x1, y1, 4 finite numbers"),
        ],
    )
    def test_what_is_wrong_is_told(self, tmp_path: Path, text: str, message: str) -> None:
        assert message in refusal(written(tmp_path, text, "prompts.csv"))

    def test_another_encoding(self, tmp_path: Path) -> None:
        (tmp_path / "prompts.csv").write_bytes("image,x0,y0,x1,y1\nbäum.jpg,1,2,3,4\n".encode("latin-1"))
        assert "not a CSV file in UTF-8" in refusal(tmp_path / "prompts.csv")


def test_a_missing_file_and_another_format(tmp_path: Path) -> None:
    assert refusal(tmp_path / "p.json") == f"--prompts: no such file: {tmp_path / 'p.json'}"
    assert "must end in .json or .csv" in refusal(written(tmp_path, "x", "prompts.txt"))


class TestMatching:
    NAMES = ("a.jpg", "x/a.jpg", "y/a.jpg", "y/b.jpg")
    BOX = ImagePrompt(box=(1, 2, 3, 4))

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ("x/a.jpg", "x/a.jpg"),
            ("./x/a.jpg", "x/a.jpg"),
            ("a.jpg", "a.jpg"),  # just its name goes before the end of another's path
            ("b.jpg", "y/b.jpg"),
            ("slides/y/a.jpg", "y/a.jpg"),
            ("/lab/slides/a.jpg", "a.jpg"),
        ],
    )
    def test_the_path_says_which_image(self, given: str, name: str) -> None:
        assert match_prompts({given: self.BOX}, self.NAMES, "p.csv", root="/lab/slides") == {name: self.BOX}

    @pytest.mark.parametrize(
        ("given", "names", "words"),
        [
            (["c.jpg"], NAMES, "p.csv: has a prompt for 'c.jpg', which is not among the images"),
            (["z/a.jpg"], NAMES, "'z/a.jpg', which is not among"),
            (["a.jpg"], NAMES[1:], "'a.jpg' may mean x/a.jpg or y/a.jpg; name more of the path"),
            (["b.jpg", "y/b.jpg"], NAMES, "has two prompts for y/b.jpg: 'b.jpg' and 'y/b.jpg'"),
        ],
    )
    def test_no_image_or_several_are_refused(self, given: list[str], names: tuple[str, ...], words: str) -> None:
        with pytest.raises(DataError) as caught:
            match_prompts(dict.fromkeys(given, self.BOX), names, "p.csv", root="/lab/slides")
        assert words in str(caught.value)


class TestInside:
    @pytest.mark.parametrize(
        "prompt",
        [
            ImagePrompt(),
            ImagePrompt(box=(0, 0, 49, 29)),
            ImagePrompt(box=(0, 0, 50, 30)),  # some count the outer edge
            ImagePrompt(points=((0, 0, 1), (49.5, 29.5, 0))),
        ],
    )
    def test_a_prompt_in_the_image(self, prompt: ImagePrompt) -> None:
        check_inside(prompt, (30, 50), "here")

    @pytest.mark.parametrize(
        ("prompt", "point"),
        [
            (ImagePrompt(box=(0, 0, 30, 50)), "(30, 50)"),  # height and width swapped
            (ImagePrompt(box=(-1, 0, 9, 9)), "(-1, 0)"),
            (ImagePrompt(points=((3, 3, 1), (3, 31, 0))), "(3, 31)"),
        ],
    )
    def test_a_prompt_that_leaves_it(self, prompt: ImagePrompt, point: str) -> None:
        with pytest.raises(DataError) as caught:
            check_inside(prompt, (30, 50), "here")
        assert str(caught.value) == f"here: {point} lies outside the image of 50 x 30 px"


class TestCanvas:
    def test_no_prompt_is_the_frame(self) -> None:
        prompts = to_canvas(ImagePrompt(), (30, 50), (38, 64))
        frame = frame_prompt([(38, 64)])
        torch.testing.assert_close(prompts.points, frame.points)
        assert torch.equal(prompts.labels, frame.labels)

    @pytest.mark.parametrize("size", [(64, 64), (32, 32), (16, 8), (128, 256)])
    def test_a_box_keeps_the_pixels_it_encloses(self, size: tuple[int, int]) -> None:
        """Where the sizes divide evenly, the box of a mask moves to the box of the resized mask."""
        height, width = size
        mask = torch.zeros(size, dtype=torch.bool)
        mask[height // 4 : height // 2, width // 8 : width * 3 // 4] = True
        x0, y0, x1, y1 = box_of(mask).tolist()
        moved = to_canvas(ImagePrompt(box=(x0, y0, x1, y1)), size, resized_hw(height, width, 64))
        expected = box_prompt(prepare_mask(mask.numpy(), 64)[None], jitter=0, generator=None)
        torch.testing.assert_close(moved.points, expected.points)
        assert torch.equal(moved.labels, expected.labels)

    def test_points_keep_their_centre_and_get_the_padding_of_the_package(self) -> None:
        prompts = to_canvas(ImagePrompt(points=((0, 0, 1), (9, 4, 0))), (10, 20), (32, 64))
        assert prompts.labels.tolist() == [[1, 0, -1]]
        expected = torch.tensor([[[1.1, 1.1], [29.9, 13.9], [0.0, 0.0]]])  # (x + 0.5) * 3.2 - 0.5
        torch.testing.assert_close(prompts.points, expected)

    def test_a_box_with_points_needs_none(self) -> None:
        prompts = to_canvas(ImagePrompt(box=(0, 0, 9, 9), points=((5, 5, 1),)), (10, 10), (10, 10))
        assert prompts.labels.tolist() == [[1, 2, 3]]
        torch.testing.assert_close(prompts.points, torch.tensor([[[5.0, 5.0], [0.0, 0.0], [9.0, 9.0]]]))
