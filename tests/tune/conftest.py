"""A real Ray for the tests of the search, as on a laptop without dashboard, and a small dataset to sweep over."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from infosam.config import RunConfig, validate
from infosam.data.store import import_dataset
from tune.cli import ui_arguments
from tune.config import SweepConfig, parse_sweep_config
from tune.home import Home, find_home
from tune.resources import SETTINGS, environment
from tune.tracking import CLIENT_SETTINGS, new_client

FAKES = Path(__file__).parent / "fakes"

SERVER_START_S = 90.0


@pytest.fixture(scope="module")  # not for longer: the tests of other folders start a Ray of their own
def ray_cluster() -> Iterator[None]:
    """Ray with two logical CPUs; its workers can import the modules in fakes/."""
    import ray

    with pytest.MonkeyPatch.context() as patch, environment(SETTINGS):
        patch.setenv("PYTHONPATH", str(FAKES))
        patch.syspath_prepend(str(FAKES))
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=2,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def _short_waits() -> Iterator[None]:
    """MLflow's client gives up as quickly as in a sweep."""
    with environment(CLIENT_SETTINGS):
        yield


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of bright discs on noise, 48 px: domain `disc`. Boxes hold much that is not, so trivial masks fail."""
    source = tmp_path_factory.mktemp("disc")
    rng = np.random.default_rng(0)
    rows = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    for folder in ("images", "masks"):
        (source / folder).mkdir()
    for split, numbers in rows.items():
        lines = ["image,label"]
        for number in numbers:
            y, x = np.mgrid[:48, :48]
            left, right = rng.uniform((8, 8, 32, 32), (16, 40, 40, 40)).reshape(2, 2)
            mask = np.zeros((48, 48), dtype=bool)
            for cx, cy in (left, right):
                mask |= (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(5, 8) ** 2
            image = (rng.uniform(0, 80, (48, 48, 3)) + 150 * mask[..., None]).astype(np.uint8)
            Image.fromarray(image).save(source / f"images/{number}.png")
            Image.fromarray((mask * 255).astype(np.uint8)).save(source / f"masks/{number}.png")
            lines.append(f"images/{number}.png,masks/{number}.png")
        (source / f"{split}.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path_factory.mktemp("imported") / "disc"
    import_dataset(source, domain="disc", out=out)
    return out


@pytest.fixture(scope="session")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of the domain `disc`, after one epoch on a small canvas."""
    from infosam.bundle import export_bundle
    from infosam.training import load_materials, train

    folder = tmp_path_factory.mktemp("trained")
    settings = {"model": {"image_px": 64}, "train": {"epochs": 1, "batch_size": 3, "device": "cpu"}}
    config = validate(RunConfig, settings, "test")
    materials = load_materials(config.model, dataset, device="cpu")
    (report,) = train(config, materials, checkpoint_dir=folder / "checkpoints")
    assert report.checkpoint is not None
    return export_bundle(report.checkpoint, materials, folder / "adapter", card={"domain": "disc"})


@pytest.fixture
def home(infosam_home: Path) -> Home:
    """The test's own results folder."""
    return find_home()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database of MLflow: making one takes seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    new_client(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def store(home: Home, empty_store: Path) -> str:
    """The embedded store of this test's home; its address."""
    home.folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(empty_store, home.database)
    return home.tracking_uri


@pytest.fixture
def free_port() -> int:
    """A port of this machine nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def serve() -> Callable[[Home, int], AbstractContextManager[str]]:
    """Starts the server of `infosam ui` over a results folder; gives its address."""
    return _serve


@contextmanager
def _serve(home: Home, port: int) -> Iterator[str]:
    process = subprocess.Popen(
        ui_arguments(home, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SERVER_START_S
        while True:
            try:
                with urlopen(f"{uri}/health", timeout=1):
                    break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    pytest.fail("the MLflow server did not start")
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # a polite end takes it longer than the test
        process.wait()


@pytest.fixture
def console() -> Console:
    """Swallows output; `console.export_text()` gives it back."""
    return Console(file=io.StringIO(), record=True, width=160)


@pytest.fixture
def sweep_config(dataset: Path) -> SweepConfig:
    """Six trials of four epochs over two settings."""
    settings = {
        "data": str(dataset),
        "run": {"train": {"epochs": 4, "batch_size": 2}},
        "space": {"optim.lr": {"log_uniform": [1e-4, 1e-2]}, "peft.rank": {"int_uniform": [1, 8]}},
        "search": {"trials": 6, "startup_trials": 3},
        "scheduler": {"grace_epochs": 1, "reduction": 2.0},
    }
    return parse_sweep_config(settings, [], source="test")
