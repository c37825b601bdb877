"""Two adapters of one made-up domain, and servers over them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

START_S = 240.0
"""Several cold processes; on a busy machine that takes minutes."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running `infosam serve`."""

    url: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="session")
def bundles(make_bundle: Callable[[int], Path]) -> tuple[Path, Path]:
    """Two adapters that do not agree."""
    return make_bundle(0), make_bundle(1)


@contextlib.contextmanager
def served(home: Path, port: int, *options: str, **environment: str) -> Iterator[Server]:
    """`infosam serve` with these options, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "infosam", "serve", "--port", str(port), "--device", "cpu", *options],
        env={**os.environ, "INFOSAM_HOME": str(home), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"no server: {process.communicate()[0][-3000:]}")
            time.sleep(0.5)
        yield Server(url=url, process=process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[Server]]:
    """See `served`."""
    return served


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=5).status_code == 200
    except requests.RequestException:
        return False
