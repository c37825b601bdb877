from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spoiled import disc, photo, save

from infosam import cli
from infosam.config import ModelConfig
from infosam.data.statistics import statistics, write_sheet
from infosam.data.store import import_dataset
from infosam.errors import DataError
from infosam.yardstick import yardsticks


@pytest.fixture
def data(csv_set: Path, tmp_path: Path) -> Path:
    rows = [f"images/train_{n}.png,masks/train_{n}.png,p{n // 2}" for n in range(4)]
    (csv_set / "train.csv").write_text("image,label,group\n" + "\n".join(rows) + "\n")
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(csv_set / "masks" / "train_0.png")
    return import_dataset(csv_set, domain="squares", out=tmp_path / "set").path


def test_figures_of_each_split(data: Path) -> None:
    train, val, test = statistics(data)
    assert (train.masks, train.images, train.groups, train.empty) == (4, 4, 2, 0)
    assert train.longest_px == (32, 32, 32)
    assert train.share[2] == pytest.approx(0.25 + 0.75 * 0.85)
    assert val.share == (0.25, 0.25, 0.25)
    assert test.groups == 0


def test_a_sheet_shows_at_most_what_is_there(data: Path, tmp_path: Path) -> None:
    assert write_sheet(data, "train", tmp_path / "sheet.png", amount=3) == 3
    assert write_sheet(data, "test", tmp_path / "sheet.png", amount=50) == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 256
    with pytest.raises(DataError, match="PNG or JPEG"):
        write_sheet(data, "test", tmp_path / "sheet.what")


def test_a_sheet_names_its_images(tmp_path: Path) -> None:
    """Whoever sees a wrong mask has to find it; a name may hold a new line."""
    for number in range(4):
        save(tmp_path / "set", f"{number}\n.png", photo(number), disc())
    data = import_dataset(tmp_path / "set", domain="d", out=tmp_path / "data").path
    assert write_sheet(data, "train", tmp_path / "sheet.png") == 2
    with Image.open(tmp_path / "sheet.png") as sheet:
        head = np.asarray(sheet.convert("L"))[:28]
    assert (head < 128).any()


def test_trivial_scores_on_squares_are_perfect_with_a_box(data: Path) -> None:
    box, none = yardsticks(data, "val", ModelConfig())
    assert (box.prompt, none.prompt) == ("box", "none")
    assert box.trivial_iou == pytest.approx(1.0)
    assert none.trivial_iou == pytest.approx(0.25, abs=0.1)
    assert 0 <= box.zero_shot_iou <= box.zero_shot_dice <= 1


def only_test(csv_set: Path) -> Path:
    """The same source without rows to train on."""
    for name in ("train.csv", "val.csv"):
        (csv_set / name).unlink(missing_ok=True)
    return csv_set


def test_the_command_shows_all_and_refuses_other_folders(
    data: Path, csv_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "show", str(data), "--no-scores", "--sheet", str(tmp_path / "s.png")])
    assert caught.value.code in (0, None)
    assert "foreground share" in capsys.readouterr().out
    assert (tmp_path / "s.png").is_file()
    scored_only = tmp_path / "scored"
    import_dataset(only_test(csv_set), domain="scored", out=scored_only)
    for arguments, expected in (
        ([str(csv_set)], "import it first"),
        ([str(data), "--model", "vit_x"], "vit_x"),
        ([str(scored_only)], "no rows in split 'val'; choose --split test"),
        (["s3://bucket/set"], "infosam data pull s3://bucket/set"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(["data", "show", *arguments])
        assert caught.value.code == 2
        assert expected in capsys.readouterr().err
