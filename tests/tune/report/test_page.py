from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made_sweeps import HOSTILE, TEST_IMAGES, make_sweep

from infosam.errors import UserError
from tune.events import SweepEnded
from tune.report.ending import with_report
from tune.report.page import write_comparison, write_report
from tune.report.record import open_record

HEADINGS = (
    "Did fine-tuning help? With",
    "Worst regressions",
    "What the information terms gave",
    "Leaderboard place",
    "Learning curves Validation",
    "Parallel coordinates",
    "Importance",
    "Pareto front: Dice against adapter",
    "Information plane How",
    "Cost wall time",
    "Why trials ended",
    "What to do next",
)
TWO = {"search": {"sampler": "nsga2", "against": "epoch_seconds"}, "scheduler": {"kind": "none"}}


def text_of(page: Path) -> str:
    """What a page says, its scripts and marks left out."""
    content = page.read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", content, flags=re.DOTALL))


def report(folder: Path, **kind: Any) -> Path:
    return write_report(open_record(make_sweep(folder, **kind)))


def test_sections_come_in_the_order_of_their_weight(tmp_path: Path) -> None:
    text = text_of(report(tmp_path / "polyp", finals=True))
    places = [text.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    assert f"{TEST_IMAGES} test images" in text
    assert "val Dice over the same configuration without them, 95 % interval" in text
    assert text.rstrip().endswith("strict protocol; backbone vit_nano; seed 0; images polyp (60 train, 20 val, "
                                  f"{TEST_IMAGES} test), digest 555555555555; code made up")  # fmt: skip


def test_page_refers_to_nothing_outside(tmp_path: Path) -> None:
    page = report(tmp_path / "polyp", trials=4)
    marks = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", marks) == []
    assert page.read_text(encoding="utf-8").count("plotly.js v") == 1  # the library once, however many plots


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"trials": 1}, ["Comparing settings needs 2 trials with a score; there is 1.", "Importance of"]),
        ({"trials": 3, "fail": True}, ["There is no result: no trial gave a score.", "there are none.",
                                       "No trial gave a result, so there is nothing to use."]),
        ({"trials": 4, "settings": TWO}, ["Dice against seconds of an epoch"]),
        ({"trials": 4, "test": False}, ["so this is no evidence yet", "Do not judge by these scores yet"]),
        ({"trials": 4, "gain": 0.0}, ["do not show that it helped", "Keep the untuned model"]),
        ({"trials": 4, "gain": -0.05}, ["it did harm", "Do not use the adapter for"]),
        ({"trials": 12}, ["it helped: mean Dice", "Use the adapter of t0009", "Set final.twin=true"]),
    ],
)  # fmt: skip
def test_every_kind_of_sweep_says_what_it_lacks(tmp_path: Path, kind: dict[str, Any], told: list[str]) -> None:
    text = text_of(report(tmp_path / "polyp", **kind))
    assert [line for line in told if line not in text] == []


def test_text_from_data_is_escaped(tmp_path: Path) -> None:
    content = report(tmp_path / "polyp", trials=2, fail=True).read_text(encoding="utf-8")
    assert HOSTILE not in content
    assert "&lt;/script&gt;" in content


def test_comparison_holds_every_sweep(tmp_path: Path) -> None:
    folders = [make_sweep(tmp_path / name, trials=2, gain=gain) for name, gain in (("polyp", 0.05), ("road", -0.05))]
    text = text_of(write_comparison(folders, tmp_path / "both.html"))
    assert text.index("2 sweeps side by side") < text.index("it helped") < text.index("it did harm")


def test_a_folder_without_sweep_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"events.jsonl: holds no sweep"):
        open_record(tmp_path)


def test_the_end_of_a_sweep_carries_the_report(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "polyp", trials=2)
    ended = SweepEnded(state="FINISHED", reason="completed", note="", files=("overlay.png",))
    assert with_report(folder, ended, pytest.fail).files == ("overlay.png", "report.html")
    assert "finished" in text_of(folder / "report.html")


def test_a_report_that_fails_ends_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    ended = SweepEnded(state="FINISHED", reason="completed", note="")
    assert with_report(tmp_path / "gone", ended, told.append) is ended
    assert len(told) == 1
    assert told[0].startswith("The report could not be written (UserError: ")
