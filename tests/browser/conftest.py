"""A browser without window, and MLflow's pages over a finished sweep of made-up pictures."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tune.home import Home

HERE = Path(__file__).parent
FAKES = (HERE / "fakes", HERE.parent / "tune" / "fakes")
WAIT_S = 120.0
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to start as root otherwise; it opens our own pages only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1600,1100",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
CLOSE_ASSISTANT = """
const button = document.querySelector('[data-component-id="mlflow.assistant.chat_panel.close"]');
if (button) button.click();
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """MLflow over the made-up sweep and three versions of its model: address of the server and of the store."""
    from servers import mlflow_server

    home = Home(folder=tmp_path_factory.mktemp("browser") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFOSAM_HOME", str(home.folder))
        for folder in FAKES:
            patch.syspath_prepend(str(folder))
        importlib.import_module("spore_sweep").make_sweep(home)
        offer_three(home, importlib.import_module("challengers"))
        with mlflow_server(home.tracking_uri, home.artifacts) as server:
            yield server.uri, home.tracking_uri


def offer_three(home: Home, challengers: Any) -> None:
    """Version 1 is champion, then 2; 3 is refused."""
    from tune.champions.promotion import promote

    for dice in (0.75, 0.8, 0.76):
        made = challengers.challenger(home.tracking_uri, home.artifacts.as_uri(), home.folder / "made", dice)
        promote(home.tracking_uri, dataclasses.replace(made, domain="spores"), challengers.rescore)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium under its own driver."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ARGUMENTS:
        options.add_argument(argument)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_AVOID_STATS", "true")
        window = webdriver.Chrome(options=options, service=Service(driver))
        window.set_page_load_timeout(WAIT_S)
        yield window
        window.quit()


class Page:
    """What a person sees of one page.

    Args:
        pictures: folder for screenshots."""

    def __init__(self, browser: Any, uri: str, pictures: Path) -> None:
        self._browser = browser
        self._uri = uri
        self._pictures = pictures

    def open(self, path: str) -> None:
        self._browser.get("about:blank")  # only the part after # would change: no new page
        self._browser.get(f"{self._uri}/#/{path}")

    def await_texts(self, *texts: str) -> str:
        """Waits until all are visible; the whole text of the page."""
        deadline = time.monotonic() + WAIT_S
        while True:
            text: str = self._browser.execute_script("return document.body.innerText").replace("\xa0", " ")
            missing = [one for one in texts if one not in text]
            if not missing:
                return text
            if time.monotonic() > deadline:
                self.photograph("missing")
                pytest.fail(f"the page never showed {missing}; see {self._pictures}: {text}")
            time.sleep(0.5)

    def await_pictures(self, section: str, count: int) -> None:
        """Scrolls to a section of the chart view, which is drawn only then, and waits for so many pictures in it."""
        script = """
        const leaves = [...document.querySelectorAll('*')].filter(e => !e.children.length);
        const title = leaves.filter(e => e.textContent.trim() === arguments[0]).pop();
        if (title) title.scrollIntoView({block: 'start'});
        const pictures = [...document.querySelectorAll('img')].filter(e => e.src.includes('artifact'));
        return pictures.filter(e => e.naturalWidth).length;"""
        deadline = time.monotonic() + WAIT_S
        while (found := self._browser.execute_script(script, section)) < count:
            if time.monotonic() > deadline:
                self.photograph("missing")
                pytest.fail(f"the page showed {found} of {count} pictures; see {self._pictures}")
            time.sleep(0.5)

    def photograph(self, name: str) -> Path:
        """A screenshot, without MLflow's assistant."""
        self._browser.execute_script(CLOSE_ASSISTANT)
        time.sleep(2.0)  # until charts have taken the room
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._browser.save_screenshot(str(self._pictures / f"{name}.png"))
        return self._pictures / f"{name}.png"


@pytest.fixture
def page(browser: Any, site: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Screenshots go to INFOSAM_SCREENSHOTS, or a temporary folder."""
    named = os.environ.get("INFOSAM_SCREENSHOTS")
    return Page(browser, site[0], Path(named) if named else tmp_path_factory.getbasetemp() / "screenshots")
