"""What a user does with data before training, on real images: import, check with its page, show with its scores."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from infosam import cli
from infosam.data.card import read_card
from infosam.data.store import open_dataset

SETS = {
    "polyp": (132, 21, 49),
    "leaf_disease": (70, 10, 20),
    "retinal_vessel": (62, 8, 18),
    "road": (70, 10, 20),
    "skin_lesion": (31, 5, 15),
    "generic_objects": (1761, 135, 247),
}


def run(*words: str | Path) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", *map(str, words)])
    assert not caught.value.code


@pytest.mark.parametrize("domain", SETS)
def test_import_check_and_show(
    domain: str, test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    source, made, page, sheet = test_data / domain, tmp_path / "set", tmp_path / "check.html", tmp_path / "sheet.png"

    run("import", source, "--domain", domain, "--out", made)
    card = read_card(made)
    assert (tuple(card.counts.values()), card.notes) == (SETS[domain], ())
    sample = open_dataset(made).read("test", 0)
    assert sample.mask.shape == sample.image.shape[:2]
    assert sample.mask.any()

    run("check", source, "--out", page)
    findings = list(csv.DictReader(io.StringIO((tmp_path / "findings.csv").read_text(), newline="")))
    assert "error" not in {one["severity"] for one in findings}
    assert page.read_text().lower().startswith("<!doctype html>")

    capsys.readouterr()
    run("show", made, "--sheet", sheet, "--amount", "4")
    said = capsys.readouterr().out
    scores = re.findall(r"│ (?:box|point|none) +│(.+)│", said)
    assert len(scores) == 2
    assert all(0 <= float(score) <= 1 for line in scores for score in line.split("│"))
    with Image.open(sheet) as drawn:
        drawn.verify()
