"""The domain of the demo."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infosam.synthetic import write_demo_domain


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_domain(tmp_path_factory.mktemp("domain"), seed=1, train=3, val=2, test=2, image_px=64)


def test_its_files(domain: Path) -> None:
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        with (domain / f"{split}.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == count
        for row in rows:
            assert list(row) == ["image", "label"]
            with Image.open(domain / row["image"]) as image, Image.open(domain / row["label"]) as mask:
                assert (image.size, image.mode) == ((64, 64), "RGB")
                assert (mask.size, mask.mode) == ((64, 64), "L")
                assert set(np.unique(np.asarray(mask))) == {0, 255}
                assert 0.01 < (np.asarray(mask) > 0).mean() < 0.6
    assert len(content(domain)) == 3 + 2 * 7


def test_the_same_arguments_give_the_same_files(domain: Path, tmp_path: Path) -> None:
    again = write_demo_domain(tmp_path / "again", seed=1, train=3, val=2, test=2, image_px=64)
    assert content(again) == content(domain)


def test_more_pictures_leave_the_first_ones_as_they_are(domain: Path, tmp_path: Path) -> None:
    more = content(write_demo_domain(tmp_path / "more", seed=1, train=4, val=2, test=2, image_px=64))
    assert all(more[name] == data for name, data in content(domain).items() if name != "train.csv")


def test_splits_and_seeds_differ(domain: Path, tmp_path: Path) -> None:
    other = write_demo_domain(tmp_path / "other", seed=2, train=3, val=2, test=2, image_px=64)
    pictures = [
        data for folder in (domain, other) for name, data in content(folder).items() if name.startswith("images")
    ]
    assert len(set(pictures)) == len(pictures) == 14
