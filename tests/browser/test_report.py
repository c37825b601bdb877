"""What a person sees of a report, on a wide screen and on a phone. Screenshots: INFOSAM_SCREENSHOTS names a folder."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_sweeps import HOSTILE, TEST_IMAGES, make_sweep
from shared_sets import MADE_UP, made_up

from infosam.bundle import export_bundle
from infosam.config import RunConfig, validate
from infosam.data.card import read_card
from infosam.training import load_materials, train
from tune.report.page import write_comparison, write_report
from tune.report.record import open_record

WIDTHS = (1400, 420)
PATIENCE_S = 60.0
CANVAS = {"model": {"image_px": 64}, "train": {"epochs": 1, "batch_size": 4, "device": "cpu"}}
TWO = {"search": {"sampler": "nsga2", "against": "adapter_mb"}, "scheduler": {"kind": "none"}}
KINDS: dict[str, dict[str, Any]] = {
    "normal": {"finals": True},
    "single": {"trials": 1},
    "failed": {"trials": 5, "fail": True, "test": False},
    "large": {"trials": 500, "epochs": 5, "gain": 0.0},
    "two": {"trials": 24, "settings": TWO},
}
PLOTS = {"normal": 6, "single": 3, "failed": 0, "large": 6, "two": 6, "comparison": 4}
"""How many plots a page has; what is not drawn is a sentence."""

DRAWN = """
return [...document.querySelectorAll('.plotly-graph-div')].map(plot => {
  const marks = plot.querySelectorAll('.trace path, .trace .point, .bars path, .points path').length;
  const box = plot.getBoundingClientRect();
  const frame = plot.closest('.scroll'), least = parseFloat(frame.firstElementChild.style.minWidth);
  const beyond = frame.scrollWidth - Math.max(frame.clientWidth, least);
  return {marks, height: box.height, beyond};
});"""
FETCHED = "return performance.getEntriesByType('resource').map(e => e.name).filter(name => !name.startsWith('data:'))"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


IMAGES = """
return [...document.querySelectorAll('.pair img')].map(one => ({
  alt: one.alt, width: one.naturalWidth, shown: one.getBoundingClientRect().width}));"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind of sweep, and one that compares three; the single trial has a real bundle and images."""
    root = tmp_path_factory.mktemp("sweeps")
    data = made_up(root, image_px=CANVAS["model"]["image_px"], test=TEST_IMAGES)[MADE_UP]
    card = read_card(data)
    source = {"name": card.domain, "digest": card.digest, "source": "made-up", "counts": dict(card.counts)}
    made_with = {"single": {"settings": {"data": str(data), "run": {"model": CANVAS["model"]}}, "data": source}}
    sweeps = {name: make_sweep(root / name, **kind, **made_with.get(name, {})) for name, kind in KINDS.items()}
    add_bundle(data, sweeps["single"] / "trials" / "t0000" / "bundle", root / "checkpoints")
    made = {name: write_report(open_record(sweep)) for name, sweep in sweeps.items()}
    three = [root / name for name in ("normal", "single", "failed", "two")]
    return made | {"comparison": write_comparison(three, root / "comparison.html")}


def add_bundle(data: Path, out: Path, checkpoints: Path) -> None:
    """An adapter after one epoch."""
    config = validate(RunConfig, CANVAS, "test")
    materials = load_materials(config.model, data, device="cpu", baselines=False)
    (report,) = train(config, materials, checkpoint_dir=checkpoints)
    assert report.checkpoint is not None
    export_bundle(report.checkpoint, materials, out, card={"domain": MADE_UP})


@pytest.fixture
def show(browser: Any) -> Iterator[Any]:
    """Opens a page at a width and draws all of it."""

    def opened(page: Path, width: int) -> Any:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get("about:blank")
        browser.get_log("browser")  # what pages before this one said
        browser.get(page.as_uri())
        return browser

    yield opened
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", [*KINDS, "comparison"])
def test_every_plot_is_drawn_and_the_page_fits(pages: dict[str, Path], show: Any, kind: str, width: int) -> None:
    browser = show(pages[kind], width)
    plots = drawn(browser, PLOTS[kind])
    photograph(browser, f"report-{kind}-{width}")
    assert len(plots) == PLOTS[kind]
    for plot in plots:
        assert plot["marks"] > 0, plot
        assert plot["height"] > 100, plot
        assert plot["beyond"] <= 1, plot
    assert browser.execute_script(OVERFLOW) <= 0
    assert browser.execute_script(FETCHED) == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_images_that_lost_most_are_seen(pages: dict[str, Path], show: Any, width: int) -> None:
    images = show(pages["single"], width).execute_script(IMAGES)
    assert [one["alt"].split(" on ")[0] for one in images] == ["zero-shot", "adapter"] * 4
    for one in images:
        assert one["width"] > 0, one
        assert 50 < one["shown"] <= width, one


def test_text_from_data_stays_text(pages: dict[str, Path], show: Any) -> None:
    browser = show(pages["failed"], WIDTHS[0])
    assert browser.title == "failed: sweep failed"
    assert HOSTILE in browser.execute_script("return document.body.innerText")


def test_details_hold_the_rest_of_a_long_leaderboard(pages: dict[str, Path], show: Any) -> None:
    browser = show(pages["large"], WIDTHS[0])
    rows = "return document.querySelectorAll('details tbody tr').length"
    assert browser.execute_script(rows) == 480
    drawn(browser, PLOTS["large"])  # until then plots may be wider than the page
    browser.execute_script("document.querySelector('summary').click()")
    assert browser.execute_script("return document.querySelector('details').open")
    assert browser.execute_script(OVERFLOW) <= 0


def drawn(browser: Any, count: int) -> list[dict[str, float]]:
    """What is known of each plot, once all are drawn and have taken their room, or when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        plots: list[dict[str, float]] = browser.execute_script(DRAWN)
        is_settled = len(plots) == count and all(plot["marks"] and plot["beyond"] <= 1 for plot in plots)
        if is_settled or time.monotonic() > deadline:
            return plots
        time.sleep(0.2)


def photograph(browser: Any, name: str) -> None:
    """The whole page as a picture, if somebody wants to look."""
    folder = os.environ.get("INFOSAM_SCREENSHOTS")
    if not folder:
        return
    size = "return [innerWidth, document.documentElement.scrollHeight]"
    width, height = browser.execute_script(size)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
