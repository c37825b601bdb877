"""One real Ray for all tests of the search, as on a laptop without dashboard, and a small dataset to sweep over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from infosam.data.store import import_dataset
from tune.config import SweepConfig, parse_sweep_config
from tune.home import Home, find_home
from tune.resources import SETTINGS, environment
from tune.tracking import CLIENT_SETTINGS

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(scope="session")
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
    """Twelve bright discs on noise, 48 px: domain `disc`."""
    source = tmp_path_factory.mktemp("disc")
    rng = np.random.default_rng(0)
    rows = {"train": range(6), "val": range(6, 9), "test": range(9, 12)}
    for folder in ("images", "masks"):
        (source / folder).mkdir()
    for split, numbers in rows.items():
        lines = ["image,label"]
        for number in numbers:
            y, x = np.mgrid[:48, :48]
            cy, cx = rng.uniform(16, 32, 2)
            mask = (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(8, 14) ** 2
            image = (rng.uniform(0, 80, (48, 48, 3)) + 150 * mask[..., None]).astype(np.uint8)
            Image.fromarray(image).save(source / f"images/{number}.png")
            Image.fromarray((mask * 255).astype(np.uint8)).save(source / f"masks/{number}.png")
            lines.append(f"images/{number}.png,masks/{number}.png")
        (source / f"{split}.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path_factory.mktemp("imported") / "disc"
    import_dataset(source, domain="disc", out=out)
    return out


@pytest.fixture
def home(infosam_home: Path) -> Home:
    """The test's own results folder."""
    return find_home()


@pytest.fixture
def console() -> Console:
    """Swallows output; `console.export_text()` gives it back."""
    import io

    return Console(file=io.StringIO(), record=True, width=160)


@pytest.fixture
def sweep_config(dataset: Path) -> SweepConfig:
    """Six trials of four epochs over two settings."""
    settings = {
        "data": str(dataset),
        "run": {"train": {"epochs": 4, "batch_size": 2}},
        "space": {"optim.lr": {"log_uniform": [1e-4, 1e-2]}, "peft.rank": {"int_uniform": [1, 8]}},
        "search": {"trials": 6, "startup_trials": 3},
        "scheduler": {"grace_epochs": 1},
    }
    return parse_sweep_config(settings, [], source="test")
