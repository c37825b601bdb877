"""The page of a data check as a person sees it: hostile names, dark and light, wide and narrow, by keyboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infosam.data.check.fix import write_fixed
from infosam.data.check.page import write_page
from infosam.data.check.run import check_source

NAMES = ('"><img src=x onerror=document.title=1>', "<style>*{display:none}<", "a" * 200, "new\nline", "図 01")
MANY = 300
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
GROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blank masks under names that would take the page over, and many more of one kind than it shows."""
    root = tmp_path_factory.mktemp("check")
    for number, name in enumerate([*NAMES, *(f"many{number:04}" for number in range(MANY))]):
        picture = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        mask = np.zeros((16, 24), np.uint8)
        mask[4:9, 5:12] = number >= len(NAMES)
        for kind, content in (("images", picture), ("masks", mask)):
            (root / "set" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / "set" / kind / f"{name}.png")
    write_page(check_source(root / "set"), root / "page.html")
    assert write_fixed(check_source(root / "set"), root / "copy").written == MANY
    return root / "page.html"


@pytest.mark.parametrize("width", [1400, 420])
def test_it_can_be_read_and_runs_nothing(width: int, page: Path, browser: Any) -> None:
    browser.set_window_size(width, 1200)
    browser.get(page.as_uri())
    assert browser.title == "Check of set"
    assert browser.execute_script("return document.scripts.length") == 0
    text = browser.execute_script("return document.body.innerText")
    assert all(name.replace("\n", "\\n") in text for name in NAMES)
    assert f"... and {MANY - 200} more" in text
    assert browser.execute_script(OVERFLOW) <= 0
    shown = browser.execute_script("return [...document.images].map(one => one.naturalWidth)")
    assert len(shown) == len(NAMES) + 1 + 12  # blank, a name with a new line, and the first of many
    assert min(shown) > 0
    if folder := os.environ.get("INFOSAM_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"check-{width}.png"))


def test_a_dark_screen_gets_a_dark_page_and_keys_lead_through_it(page: Path, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    light = browser.execute_script(GROUND)
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert browser.execute_script(GROUND) != light
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.switch_to.active_element.send_keys(Keys.TAB)
    first = browser.switch_to.active_element
    assert first.text == "blank"
    first.send_keys(Keys.ENTER)
    assert browser.current_url.endswith("#blank")
