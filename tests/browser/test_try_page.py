"""The page of `infosam serve`, over a segmenter that only cuts at a brightness."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from brightness import Brightness
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait
from servers import free_port

from cluster.serve.app import build_app
from cluster.serve.settings import ServeSettings

WAIT_S = 60.0
TOKEN = "a-token-nobody-would-guess"
WIDTHS = (1600, 420)


@contextmanager
def running(segmenter: Brightness, **settings: Any) -> Iterator[str]:
    """The application on a port of its own; its address."""
    port = free_port()
    app = build_app(segmenter, ServeSettings(port=port, **settings), "r1")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def run() -> Iterator[Callable[..., str]]:
    with ExitStack() as stack:
        yield lambda segmenter, **settings: stack.enter_context(running(segmenter, **settings))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A bright rectangle on black: a twelfth of the picture."""
    rgb = np.zeros((120, 200, 3), dtype=np.uint8)
    rgb[30:70, 50:100] = 255
    Image.fromarray(rgb).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def text(browser: Any, part: str) -> str:
    return str(browser.find_element(By.ID, part).text)


def until(browser: Any, part: str, words: str) -> None:
    WebDriverWait(browser, WAIT_S).until(lambda page: words in text(page, part), f"{words} in {part}")


def give(browser: Any, file: Path) -> None:
    browser.find_element(By.ID, "file").send_keys(str(file))


def colour(browser: Any, x: int, y: int) -> list[int]:
    script = """
    const pen = document.getElementById('canvas').getContext('2d');
    return [...pen.getImageData(arguments[0], arguments[1], 1, 1).data];"""
    return [int(value) for value in browser.execute_script(script, x, y)]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_picture_shows_its_mask_domain_and_score(
    browser: Any, run: Callable[..., str], picture: Path, width: int
) -> None:
    browser.set_window_size(width, 1000)
    browser.get(run(Brightness()))
    WebDriverWait(browser, WAIT_S).until(lambda page: len(Select(page.find_element(By.ID, "domain")).options) == 4)
    give(browser, picture)
    until(browser, "status", "Done")
    assert text(browser, "chosen") == "bright"
    assert "0.25" in text(browser, "score")
    assert text(browser, "area").startswith("8.3 %")
    assert "as bright as day" in text(browser, "reason")
    inside, outside = colour(browser, 60, 40), colour(browser, 10, 10)
    assert inside[2] < 200 < inside[0]  # orange over white
    assert outside[:3] == [0, 0, 0]
    wide = browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert wide, "the page is wider than its window"


def drop(browser: Any, content: bytes, name: str) -> None:
    """Lets go of a file over the page's field, as a browser tells it."""
    script = """
    const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], arguments[1], {type: 'image/png'}));
    for (const kind of ['dragenter', 'dragover', 'drop']) {
      const event = new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true});
      document.getElementById('drop').firstElementChild.dispatchEvent(event);
      if (!event.defaultPrevented) throw new Error(`${kind}: the browser would leave the page for the file`);
    }
    return document.getElementById('drop').className;"""
    assert "over" not in browser.execute_script(script, base64.b64encode(content).decode(), name).split()


def test_a_picture_that_is_dropped(browser: Any, run: Callable[..., str], picture: Path) -> None:
    segmenter = Brightness()
    browser.get(run(segmenter))
    drop(browser, picture.read_bytes(), "dropped.png")
    until(browser, "status", "Done")
    assert text(browser, "chosen") == "bright"
    assert text(browser, "area").startswith("8.3 %")
    assert segmenter.orders[0].rgb.shape == (120, 200, 3)
    drop(browser, b"no picture", "notes.png")
    until(browser, "status", "notes.png cannot be shown")


def test_a_box_that_is_drawn_is_the_prompt(browser: Any, run: Callable[..., str], picture: Path) -> None:
    segmenter = Brightness()
    browser.set_window_size(1200, 900)
    browser.get(run(segmenter))
    give(browser, picture)
    until(browser, "status", "Done")
    canvas = browser.find_element(By.ID, "canvas")
    scale = canvas.size["width"] / 200
    drag = ActionChains(browser).move_to_element_with_offset(canvas, round(-60 * scale), round(-40 * scale))
    drag.click_and_hold().move_by_offset(round(70 * scale), round(60 * scale)).release().perform()
    WebDriverWait(browser, WAIT_S).until(lambda _: len(segmenter.orders) == 2)
    until(browser, "status", "Done")
    prompt = segmenter.orders[-1].prompt
    assert prompt is not None
    assert prompt.box == pytest.approx((40, 20, 110, 80), abs=3)
    browser.find_element(By.ID, "unbox").click()
    WebDriverWait(browser, WAIT_S).until(lambda _: len(segmenter.orders) == 3)
    assert segmenter.orders[-1].prompt is None


def test_a_domain_can_be_chosen(browser: Any, run: Callable[..., str], picture: Path) -> None:
    segmenter = Brightness()
    browser.get(run(segmenter))
    give(browser, picture)
    until(browser, "status", "Done")
    Select(browser.find_element(By.ID, "domain")).select_by_value("none")
    until(browser, "chosen", "plain SAM")
    assert segmenter.orders[-1].domain == "none"
    Select(browser.find_element(By.ID, "domain")).select_by_visible_text("broken (only by name)")
    until(browser, "status", "damaged")
    assert not browser.find_element(By.ID, "result").is_displayed()


def test_what_is_no_picture_is_said(browser: Any, run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    browser.get(run(Brightness()))
    give(browser, tmp_path / "notes.png")
    until(browser, "status", "notes.png cannot be shown")


def test_a_server_with_a_token_asks_for_it(browser: Any, run: Callable[..., str], picture: Path) -> None:
    browser.get(run(Brightness(), token=TOKEN))
    give(browser, picture)
    until(browser, "status", "wants a token")
    field = browser.find_element(By.ID, "token")
    assert field.get_attribute("type") == "password"
    field.send_keys(TOKEN, "\t")
    until(browser, "status", "Done")
    assert text(browser, "chosen") == "bright"
