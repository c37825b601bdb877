"""Machines for whole clusters, a MLflow server over PostgreSQL beside them, and adapters to use on them."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import machines
import numpy as np
import pytest
import ray
import servers
from machines import Machine, Network
from numpy.typing import NDArray
from PIL import Image
from square_set import import_square

from infosam.config import RunConfig, validate
from infosam.data.store import import_dataset, open_dataset
from infosam.synthetic import write_demo_domain


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """An empty network of machines; see `machines`."""
    try:
        with machines.network() as network:
            yield network
    except machines.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    """What a person's shell sets, without anything of Ray, MLflow or our own; `python`, `ray` and `infosam` are found.

    A checkout that is not installed stays importable."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "INFOSAM_"))}
    return kept | {
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@pytest.fixture(scope="session")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one picture for each split, for trainings that do not look at it."""
    return import_square(tmp_path_factory.mktemp("square"), tmp_path_factory.mktemp("imported") / "square")


@pytest.fixture(scope="session")
def start_tracking() -> Callable[[Machine, Path, ExitStack], servers.MlflowServer]:
    """Starts MLflow over PostgreSQL on a machine's loopback, with its files in a folder; skips without PostgreSQL."""
    return _start_tracking


def _start_tracking(machine: Machine, folder: Path, stack: ExitStack) -> servers.MlflowServer:
    with machine.inside():
        try:
            database = stack.enter_context(servers.postgresql())
        except servers.Missing as missing:
            pytest.skip(str(missing))
        return stack.enter_context(servers.mlflow_server(database.create("runs"), folder / "artifacts"))


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """A Ray of this machine."""
    ray.init(
        address="local", num_cpus=3, num_gpus=0, include_dashboard=False, log_to_driver=False,
        object_store_memory=100 * 2**20,
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def spores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    folder = tmp_path_factory.mktemp("spores")
    pictures = write_demo_domain(folder / "pictures", seed=0, train=24, val=3, test=3)
    import_dataset(pictures, domain="spores", out=folder / "data", seed=0)
    return folder / "data"


@pytest.fixture(scope="session")
def negatives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another domain: spores in negative."""
    folder = tmp_path_factory.mktemp("negatives")
    pictures = write_demo_domain(folder / "pictures", seed=1, train=24, val=3, test=3)
    for file in (pictures / "images").iterdir():
        with Image.open(file) as picture:
            rgb = np.asarray(picture)
        Image.fromarray(255 - rgb).save(file)
    import_dataset(pictures, domain="negatives", out=folder / "data", seed=0)
    return folder / "data"


MakeBundle = Callable[..., Path]


@pytest.fixture(scope="session")
def make_bundle(spores: Path, negatives: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Trains an adapter for an epoch on a small canvas, once for each seed and domain; another seed, other masks."""
    from infosam.bundle import export_bundle
    from infosam.training import load_materials, train

    @cache
    def made(seed: int, domain: str = "spores") -> Path:
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        settings = {
            "model": {"image_px": 64},
            "train": {"epochs": 1, "batch_size": 4, "seed": seed, "device": "cpu"},
            "optim": {"lr": 1e-2},
        }
        config = validate(RunConfig, settings, "test")
        data = {"spores": spores, "negatives": negatives}[domain]
        materials = load_materials(config.model, data, device="cpu")
        (report,) = train(config, materials, checkpoint_dir=folder / "checkpoints")
        assert report.checkpoint is not None
        return export_bundle(report.checkpoint, materials, folder / "adapter", card={"domain": domain})

    return made


@pytest.fixture(scope="session")
def own_pictures(spores: Path, negatives: Path) -> Callable[[Mapping[str, Path]], dict[str, NDArray[np.uint8]]]:
    """For bundles by domain a picture each that was never trained on and that the router gives to its own domain."""
    from infosam.routing.pool import AdapterPool

    def chosen(bundles: Mapping[str, Path]) -> dict[str, NDArray[np.uint8]]:
        pool, found = AdapterPool.from_folders(bundles, device="cpu"), {}
        for name in bundles:
            store = open_dataset({"spores": spores, "negatives": negatives}[name])
            pictures = [store.read(split, row).image for split in ("test", "val") for row in range(store.rows(split))]
            made = zip(pictures, pool.predict_batch(pictures), strict=True)
            found[name] = next(rgb for rgb, one in made if one.domain == name)
        return found

    return chosen


@pytest.fixture
def crown(infosam_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Makes a bundle the champion of a domain in this test's results folder: version 1, then 2, ..."""
    from tune.champions.promotion import Challenger, promote
    from tune.champions.rule import Evidence
    from tune.home import Home
    from tune.tracking import new_client

    home = Home(folder=infosam_home)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home.folder.mkdir(exist_ok=True)
    client = new_client(home.tracking_uri)
    experiment = client.create_experiment("sweep", artifact_location=home.artifacts.as_uri())
    promoted: Counter[str] = Counter()

    def crowned(domain: str, bundle: Path) -> None:
        dice = np.full(3, 0.7 + 0.05 * promoted[domain])
        promoted[domain] += 1
        evidence = Evidence(prompt="box", adapter=dice, zero_shot=dice - 0.3, trivial=dice - 0.2)
        run = client.create_run(experiment)
        challenger = Challenger(domain=domain, bundle=bundle, run_id=run.info.run_id, evidence=evidence)
        assert promote(home.tracking_uri, challenger, lambda bundle: dice - 0.05).promoted

    return crowned
