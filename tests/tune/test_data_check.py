"""Data is looked at before a sweep: errors stop it, warnings are told each time, and the pictures are opened once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from infosam.config import ModelConfig
from infosam.data.card import read_card
from infosam.data.check.findings import KINDS, Finding
from infosam.data.check.run import Report
from infosam.data.pairs import ReadOptions
from infosam.data.readers.contract import Listing
from infosam.data.store import import_dataset
from infosam.errors import DataError
from tune import data_check
from tune.data_check import check_data
from tune.home import Home


def pictures(folder: Path, *, same: bool) -> Path:
    """One picture for each split; all different, or one in train and val."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number, split in enumerate(("train", "val", "test")):
        if number != 1 or not same:
            picture = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        mask = np.zeros((24, 24), np.uint8)
        mask[4:16, 4:16] = 255
        Image.fromarray(picture).resize((96, 96)).save(folder / f"{number}.png")
        Image.fromarray(mask).resize((96, 96), Image.Resampling.NEAREST).save(folder / f"{number}-mask.png")
        (folder / f"{split}.csv").write_text(f"image,label\n{number}.png,{number}-mask.png\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(folder=tmp_path / "home")


def imported(tmp_path: Path, *, same: bool) -> Path:
    import_dataset(pictures(tmp_path / "source", same=same), domain="noise", out=tmp_path / "noise")
    return tmp_path / "noise"


def said(data: Path, home: Home, model: str = "vit_nano", **options: bool) -> str:
    console = Console(file=io.StringIO(), width=300)
    check_data(data, ModelConfig(name=model), home, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_nothing_is_said_of_sound_data(tmp_path: Path, home: Home) -> None:
    assert said(imported(tmp_path, same=False), home) == ""


def test_warnings_are_told_every_time_and_pictures_are_opened_once(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = imported(tmp_path, same=True)
    first = said(data, home)
    assert "duplicate (1): the same picture in two splits makes scores too good" in first
    assert f"infosam data check {data} --mask-px 96" in first
    monkeypatch.setattr(data_check, "check_source", lambda *_, **__: pytest.fail("opened again"))
    assert said(data, home) == first


def test_the_masks_of_the_model_decide_what_is_too_thin(tmp_path: Path, home: Home) -> None:
    """vit_nano draws masks of 96 px, vit_b of 256: a hair of 1 px in 288 vanishes in the first only."""
    source = tmp_path / "source"
    source.mkdir()
    for number, split in enumerate(("train", "val", "test")):
        picture = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        mask = np.zeros((288, 288), np.uint8)
        mask[40:200, 100] = 255
        Image.fromarray(picture).resize((288, 288)).save(source / f"{number}.png")
        Image.fromarray(mask).save(source / f"{number}-mask.png")
        (source / f"{split}.csv").write_text(f"image,label\n{number}.png,{number}-mask.png\n")
    data = import_dataset(source, domain="hair", out=tmp_path / "hair").path
    assert "thin (3)" in said(data, home)
    assert "thin" not in said(data, home, "vit_b")  # a record of its own
    assert "thin (3)" in said(data, home)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "0.0.1", "warnings": {}}'])
def test_a_record_that_says_nothing_is_made_again(tmp_path: Path, home: Home, content: str) -> None:
    data = imported(tmp_path, same=True)
    record = home.checks / f"{read_card(data).digest}-96.json"
    record.parent.mkdir(parents=True)
    record.write_text(content)
    assert "duplicate (1)" in said(data, home)
    assert json.loads(record.read_text())["warnings"] == {"duplicate": 1}


def test_files_that_changed_are_looked_at_again(tmp_path: Path, home: Home) -> None:
    """The card still has the digest of what was written once."""
    data = imported(tmp_path, same=False)
    assert said(data, home) == ""
    (part,) = (data / "data").glob("*.parquet")
    content = part.read_bytes()
    start = content.index(b"IDAT") + 8
    part.write_bytes(content[:start] + bytes(200) + content[start + 200 :])
    with pytest.raises(DataError, match="unfit to train on"):
        said(data, home)


def test_a_look_that_is_not_remembered_leaves_nothing(tmp_path: Path, home: Home) -> None:
    assert "duplicate (1)" in said(imported(tmp_path, same=True), home, remember=False)
    assert not home.folder.exists()


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, home: Home) -> None:
    home.folder.write_text("a file")
    assert "duplicate (1)" in said(imported(tmp_path, same=True), home)


def test_errors_stop_and_name_the_rows(tmp_path: Path, home: Home) -> None:
    data = imported(tmp_path, same=False)
    (part,) = (data / "data").glob("*.parquet")
    content = part.read_bytes()
    start = content.index(b"IDAT") + 8
    part.write_bytes(content[:start] + bytes(200) + content[start + 200 :])
    with pytest.raises(DataError, match=rf"{data}: unfit to train on; see infosam data check {data}"):
        said(data, home)
    assert not home.checks.exists()


def test_many_errors_of_one_kind_hide_none_of_another() -> None:
    kinds = [("damaged", 9), ("blank", 1)]
    found = [Finding(KINDS[kind], f"{kind}{n}.png", "", "is bad") for kind, amount in kinds for n in range(amount)]
    report = Report(
        source=Path("set"), listing=Listing(root=Path("set"), listed=[]), facts=(), findings=tuple(found),
        options=ReadOptions(),
    )  # fmt: skip
    said = str(data_check._refusal(Path("set"), report, 256))
    assert "damaged: ... and 4 more\n  blank: blank0.png: is bad" in said
