from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from spoiled import copied, disc, photo, save

from infosam import cli
from infosam.data.check.page import render_page, show_report, write_page
from infosam.data.check.run import check_source
from infosam.errors import DataError


def test_the_page_takes_the_place_of_no_other_file(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"images/train/{number}.png,masks/train/{number}.png" for number in range(4)]
    (clean / "list.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    (clean / "findings.csv").write_text("mine")
    before = {path: path.read_bytes() for path in clean.rglob("*") if path.is_file()}
    for out in ("list.csv", "images/train/1.png", "page.html", "none/page.html"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", "check", str(clean / "list.csv"), "--out", str(clean / out)])
        assert ended.value.code == 2, out
        printed = capsys.readouterr()
        assert "--out" in printed.err
        assert printed.out == ""  # said before anything was looked at
    assert {path: path.read_bytes() for path in clean.rglob("*") if path.is_file()} == before


def test_its_own_list_is_replaced(clean: Path, tmp_path: Path) -> None:
    for _ in range(2):
        write_page(check_source(clean), tmp_path / "page.html")
    (tmp_path / "findings.csv").write_text("severity,finding\n")
    with pytest.raises(DataError, match="no list of a check"):
        write_page(check_source(clean), tmp_path / "page.html")


def test_names_neither_command_the_terminal_nor_turn_the_page(clean: Path) -> None:
    name = "a\x1b[31m\u202egnp.exe"
    save(clean, f"train/{name}.png", photo(30), disc(value=0))
    report = check_source(clean)
    console = Console(width=250, file=io.StringIO())
    show_report(console, report)
    for shown in (render_page(report), console.file.getvalue()):  # type: ignore[attr-defined]
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "a\\x1b[31m\\u202egnp.exe" in shown


def test_two_that_are_alike_stand_below_each_other(clean: Path) -> None:
    copied(clean, "test/6")
    pictures = [part.split('"')[0] for part in render_page(check_source(clean)).split("data:image/jpeg;base64,")[1:]]
    assert len(pictures) == 2
    assert {Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures} == {(64, 64)}
