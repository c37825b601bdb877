"""One Ray for all fault tests, sweeps in the test's process or in one that can be killed, and a watch on their log."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console
from square_set import import_square

from tune.config import SweepConfig, parse_sweep_config
from tune.event_log import NAME, read_events
from tune.events import Event
from tune.home import Home, find_home
from tune.ledger import Ledger
from tune.resources import SETTINGS, environment
from tune.tracking import CLIENT_SETTINGS

FAKES = Path(__file__).parents[1] / "tune" / "fakes"
DRIVER = Path(__file__).with_name("driver.py")
TRAINING = "lasting_training"
PATIENCE_S = 150.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(DRIVER.parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")  # not for longer: the tests of other folders start a Ray of their own
def cluster() -> Iterator[Cluster]:
    """A head node with two CPUs; tests add others. Its workers can import the modules in fakes/."""
    import ray

    with pytest.MonkeyPatch.context() as patch, environment(SETTINGS | CLIENT_SETTINGS):
        patch.setenv("PYTHONPATH", os.pathsep.join([str(FAKES), os.environ.get("PYTHONPATH", "")]))
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "include_dashboard": False,
                "object_store_memory": 100 * 2**20,
                "_system_config": {"health_check_period_ms": 1000, "health_check_failure_threshold": 5},
            },
        )
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture for each split, which nobody learns from."""
    return import_square(tmp_path_factory.mktemp("square"), tmp_path_factory.mktemp("imported") / "square")


@pytest.fixture
def home(infosam_home: Path) -> Home:
    """The test's own results folder."""
    return find_home()


@pytest.fixture
def console() -> Console:
    """Swallows output; `console.export_text()` gives it back."""
    return Console(file=io.StringIO(), record=True, width=160)


@pytest.fixture
def configure(dataset: Path) -> Callable[..., SweepConfig]:
    """A sweep of four epochs over these learning rates in order, none stopped early; sections may be changed."""

    def make(rates: list[float], *, data: Path = dataset, **sections: Mapping[str, Any]) -> SweepConfig:
        settings: dict[str, Any] = {
            "data": str(data),
            "run": {"train": {"epochs": 4, "batch_size": 2}},
            "space": {"optim.lr": {"choice": sorted(rates)}},
            "search": {"trials": len(rates), "points": [{"optim.lr": rate} for rate in rates]},
            "scheduler": {"kind": "none"},
            "resources": {"max_failures": 2, "slots": 2},
        }
        for name, changes in sections.items():
            settings[name] = {**settings.get(name, {}), **changes} if name != "space" else changes
        return parse_sweep_config(settings, [], source="test")

    return make


@pytest.fixture
def spawn(tmp_path: Path, home: Home) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `infosam ARGUMENTS` as a process, by default on the Ray at `address`; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, address: str | None) -> subprocess.Popen[str]:
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), *sys.path])}
        if address is not None:
            variables["RAY_ADDRESS"] = address
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), TRAINING, *arguments],
            env=variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def written(tmp_path: Path) -> Callable[[SweepConfig], str]:
    """Writes a configuration into a file; its path."""

    def write(config: SweepConfig) -> str:
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        return str(path)

    return write


@pytest.fixture
def once() -> Iterator[Callable[..., threading.Thread]]:
    """Does something as soon as a log holds an event; fails the test if that never comes or the deed raises."""
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []

    def watch(folder: Path, wanted: Callable[[Event], bool], deed: Callable[[Event], Any]) -> threading.Thread:
        def run() -> None:
            try:
                deed(await_event(folder, wanted))
            except BaseException as error:  # noqa: BLE001 - told in the test's own thread
                failures.append(error)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return threads[-1]

    yield watch
    for thread in threads:
        thread.join(PATIENCE_S)
    if failures:
        raise failures[0]


def await_event(folder: Path, wanted: Callable[[Event], bool]) -> Event:
    """The first event of a sweep's log that is wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (folder / NAME).exists():
            for event, _ in read_events(folder / NAME):
                if wanted(event):
                    return event
        time.sleep(0.02)
    raise TimeoutError(f"{folder / NAME} never held the event that was waited for")


@pytest.fixture
def wait_for() -> Callable[[Path, Callable[[Event], bool]], Event]:
    """See `await_event`."""
    return await_event


@pytest.fixture
def killed_at(
    cluster: Cluster,
    home: Home,
    spawn: Callable[..., subprocess.Popen[str]],
    written: Callable[[SweepConfig], str],
) -> Callable[..., Ledger]:
    """Runs a sweep in a process that is killed at an event; what its log holds then."""

    def run(config: SweepConfig, wanted: Callable[[Event], bool], before: Callable[[], None] | None = None) -> Ledger:
        log = home.sweeps / "square" / NAME
        driver = spawn("sweep", written(config), address=cluster.address)
        await_event(log.parent, wanted)
        if before is not None:
            before()
        driver.kill()
        driver.wait()
        return Ledger.replay(log)

    return run
