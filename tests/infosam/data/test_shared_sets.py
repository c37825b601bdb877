"""Every shared data set is imported, checked and shown, as a user would."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from infosam import cli
from infosam.data.check.run import check_source
from infosam.data.statistics import statistics
from infosam.data.store import open_dataset

pytestmark = pytest.mark.slow
SETS = ("polyp", "leaf_disease", "retinal_vessel", "road", "skin_lesion", "generic_objects")
SCORED = "skin_lesion"  # the smallest


def infosam(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert ended.value.code in (0, None)


@pytest.mark.parametrize("name", SETS)
def test_a_shared_set_is_imported_checked_and_shown(
    name: str, test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    source, data, sheet = test_data / name, tmp_path / "set", tmp_path / "sheet.png"
    listed = {}
    for split in ("train", "val", "test"):
        with (source / f"{split}.csv").open(newline="", encoding="utf-8") as file:
            listed[split] = [*csv.DictReader(file)]
    report = check_source(source)
    assert [finding.what for finding in report.findings if finding.kind.severity == "error"] == []
    assert len(report.facts) == sum(map(len, listed.values()))

    infosam("data", "import", str(source), "--domain", name, "--out", str(data))
    figures = {row.split: row for row in statistics(data)}
    assert {split: row.masks for split, row in figures.items()} == {split: len(rows) for split, rows in listed.items()}
    assert {split: row.images for split, row in figures.items()} == {
        split: len({row["image"] for row in rows}) for split, rows in listed.items()
    }
    assert all(0 < row.share[1] < 1 and row.empty == 0 for row in figures.values())
    store = open_dataset(data)
    assert store.read("test", 0).image.shape[:2] == store.read("test", 0).mask.shape

    capsys.readouterr()
    scores = ["--split", "val"] if name == SCORED else ["--no-scores"]
    infosam("data", "show", str(data), "--sheet", str(sheet), "--amount", "6", *scores)
    shown = capsys.readouterr().out
    assert all(split in shown for split in listed)
    assert ("zero-shot Dice" in shown) == (name == SCORED)
    assert sheet.stat().st_size > 10_000
