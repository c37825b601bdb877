"""Sweeps over data sets in a bucket, from a real S3 server on loopback."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from object_store import ObjectStore, object_store
from rich.console import Console

from infosam.data.card import read_card
from infosam.data.growing import resplit
from infosam.data.pushing import push
from infosam.errors import DataError, FetchError
from tune.config import SweepConfig, parse_sweep_configs
from tune.fetched import DIGEST_MARK, fetch_all
from tune.home import Home
from tune.remote_data import with_copies
from tune.runner import resume_sweep, run_sweeps


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectStore]:
    with object_store("lab") as store:
        yield store


@pytest.fixture
def lab(running: ObjectStore, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The test images at s3://lab/disc."""
    for name, text in running.environment.items():
        monkeypatch.setenv(name, text)
    push(dataset, running.uri("lab/disc"), overwrite=True)
    running.trouble.counts.clear()
    return running


def test_an_address_becomes_a_folder_named_after_what_it_holds(lab: ObjectStore, dataset: Path, home: Home) -> None:
    digest = read_card(dataset).digest
    folder = str(home.remote / f"disc-{digest[:16]}")
    address = f"s3://lab/disc{DIGEST_MARK}{digest}"
    found = with_copies({"data": "s3://lab/disc/", "resources": {"fetch": {"/w": "s3://lab/w"}, "slots": 2}})
    assert found == {"data": folder, "resources": {"fetch": {"/w": "s3://lab/w", folder: address}, "slots": 2}}
    assert with_copies({"domains": ["s3://lab/disc", "here"]})["domains"] == [folder, "here"]
    assert with_copies({"data": "here"}) == {"data": "here"}
    assert not home.remote.exists()


def test_an_address_without_a_data_set_is_refused(lab: ObjectStore, sweep_config: SweepConfig) -> None:
    settings = sweep_config.model_dump(mode="json")
    with pytest.raises(DataError, match="s3://lab/nothing: not an imported data set"):
        parse_sweep_configs(settings, ["data=s3://lab/nothing"], source="test")


def test_processes_of_a_machine_copy_it_once_and_whole(lab: ObjectStore, dataset: Path, home: Home) -> None:
    wanted = with_copies({"data": "s3://lab/disc"})["resources"]["fetch"]
    lab.trouble.counts.clear()
    lab.trouble.delay_s = 0.02
    threads = [threading.Thread(target=fetch_all, args=(wanted,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lab.trouble.delay_s = 0.0
    (folder,) = map(Path, wanted)
    assert read_card(folder).digest == read_card(dataset).digest
    assert not folder.is_symlink()
    assert lab.trouble.counts["GET"] <= 4  # the card, and one file in one or two parts
    assert [path.name for path in home.remote.iterdir() if not path.name.startswith(".")] == [folder.name]


def test_a_bucket_that_changed_is_refused(lab: ObjectStore, dataset: Path, tmp_path: Path) -> None:
    wanted = with_copies({"data": "s3://lab/disc"})["resources"]["fetch"]
    shutil.copytree(dataset, tmp_path / "changed")
    resplit(tmp_path / "changed", seed=5)
    push(tmp_path / "changed", lab.uri("lab/disc"))
    with pytest.raises(FetchError, match=r"s3://lab/disc: holds another data set by now .* start another sweep"):
        fetch_all(wanted)
    assert not Path(next(iter(wanted))).exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_takes_its_images_from_a_bucket(
    lab: ObjectStore, dataset: Path, sweep_config: SweepConfig, home: Home, console: Console
) -> None:
    settings = sweep_config.model_dump(mode="json")
    configs = parse_sweep_configs(settings, ["data=s3://lab/disc", "search.trials=2"], source="test")
    (outcome,) = run_sweeps(configs, home=home, console=console, training="tune.noop")
    assert len(outcome.ledger.trials) == 2
    assert outcome.ledger.sweep is not None
    assert outcome.ledger.sweep.tags["data_digest"] == read_card(dataset).digest
    kept = yaml.safe_load((outcome.folder / "sweep.yaml").read_text())
    assert list(kept["resources"]["fetch"]) == [kept["data"]]
    shutil.rmtree(kept["data"])  # as on another machine
    again = resume_sweep(outcome.sweep_id, home=home, console=console, training="tune.noop")
    assert len(again.ledger.trials) == 2
    assert Path(kept["data"]).is_dir()
