"""`infosam cluster doctor`: each planted fault is found with its cure, and a real cluster is examined."""

from __future__ import annotations

import hashlib
import io
import platform
import secrets
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import ray
from rich.console import Console

from cluster.checks import CHECKS, Facts, NodeFacts, diagnose
from cluster.doctor import _wishes, gather, show
from cluster.examine import examine_node, examine_tracking, remove_mark, write_mark
from infosam.data.card import CARD_NAME
from tune.config import parse_sweep_config

GIB = 2**30
GENEROUS_S = 150

GOOD = NodeFacts(
    address="10.0.0.2",
    gpus=1.0,
    python="3.11.13",
    ray="2.60.0",
    infosam="0.1.0",
    torch="2.15.0",
    cuda="13.2",
    torch_gpus=1,
    driver="590.44.01",
    auth_mode="token",
    shm_bytes=8 * GIB,
    sees_mark=True,
    weights="a" * 64,
)
HEALTHY = Facts(
    nodes=[replace(GOOD, address="10.0.0.1", is_head=True, gpus=0.0, torch_gpus=None, cuda=None), GOOD],
    client_ray="2.60.0",
    client_python="3.11.13",
    client_infosam="0.1.0",
    storage="/mnt/infosam",
    weights_path="/mnt/infosam/vit_b.pth",
    weights_sha256="a" * 64,
    gpus_wanted=1.0,
    tracking_uri="http://10.0.0.1:5000",
)


def with_worker(**changes: object) -> Facts:
    return replace(HEALTHY, nodes=[HEALTHY.nodes[0], replace(GOOD, **changes)])


# What is planted, the check that finds it, words of what it says, words of the cure.
FAULTS = {
    "a node is mute": (with_worker(silence="nothing within 9 s"), "all nodes answer", "within 9 s", "--timeout"),
    "another Ray": (with_worker(ray="2.55.1"), "same Ray and Python", "2.55.1", "one image"),
    "another Python": (with_worker(python="3.12.1"), "same Ray and Python", "3.12.1", "same Python"),
    "no infosam": (with_worker(infosam=None), "same infosam", "not installed", "install infosam 0.1.0"),
    "torch without CUDA": (with_worker(torch_gpus=0, cuda=None), "GPU", "torch sees none", "--gpus all"),
    "no GPU at all": (with_worker(gpus=0.0, torch_gpus=None), "GPU", "no node offers", "start GPU nodes"),
    "an old driver": (with_worker(driver="550.90.07"), "driver", "550.90.07 is too old", "driver 580"),
    "a broken driver": (with_worker(driver_error="version mismatch"), "driver", "version mismatch", "restart"),
    "a folder for reading only": (
        with_worker(storage_error="Permission denied", sees_mark=None),
        "storage is writable",
        "Permission denied",
        "mount the shared folder",
    ),
    "a folder of the machine's own": (with_worker(sees_mark=False), "storage is shared", "not the folder", "same file"),
    "a bucket that refuses": (
        with_worker(bucket_errors=["s3://lab/states cannot be written to: ACCESS_DENIED"]),
        "bucket",
        "ACCESS_DENIED",
        "give all nodes credentials",
    ),
    "MLflow is down": (
        replace(HEALTHY, tracking_error="Connection refused"),
        "MLflow",
        "Connection refused",
        "start the server",
    ),
    "MLflow refuses": (
        replace(HEALTHY, tracking_error="Permission denied"),
        "MLflow",
        "written to",
        "MLFLOW_TRACKING_USERNAME",
    ),
    "no MLflow server": (replace(HEALTHY, tracking_uri=None), "MLflow", "no MLflow server", "MLFLOW_TRACKING_URI"),
    "MLflow in a file": (replace(HEALTHY, tracking_uri="sqlite:///m.db"), "MLflow", "database file", "server"),
    "a clock ahead": (with_worker(clock_error_s=400.0), "clock", "400 s ahead", "set-ntp"),
    "a clock behind": (with_worker(clock_error_s=-90.0), "clock", "90 s behind", "set-ntp"),
    "no token": (with_worker(auth_mode=""), "token", "without token", "RAY_AUTH_MODE=token"),
    "no weights": (with_worker(weights=None, weights_error="No such file"), "weights", "No such file", "/vit_b.pth"),
    "other weights": (with_worker(weights="b" * 64), "weights", "bbbbbbbbbbbb", "damaged"),
    "little shared memory": (with_worker(shm_bytes=64 * 2**20), "shared memory", "0.06 GiB", "--shm-size"),
}


def test_a_healthy_cluster_has_nothing_to_mend() -> None:
    assert not any(diagnose(HEALTHY).values())
    assert set(diagnose(HEALTHY)) == {check.name for check in CHECKS}


def test_every_check_has_a_planted_fault() -> None:
    assert {check for _, check, _, _ in FAULTS.values()} == {check.name for check in CHECKS}
    assert len(FAULTS) >= 10


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_its_cure_named(name: str) -> None:
    facts, check, what, cure = FAULTS[name]
    found = {name: problems for name, problems in diagnose(facts).items() if problems}
    assert set(found) == {check}
    (problem,) = found[check]
    assert what in problem.what
    assert cure in problem.cure
    page = io.StringIO()
    show(diagnose(facts), facts, Console(width=200, file=page))
    assert problem.cure in page.getvalue()


def test_a_cluster_whose_workers_come_with_the_trials_is_sound_without_any() -> None:
    head = replace(HEALTHY.nodes[0], grows=True)
    alone = replace(HEALTHY, nodes=[head])
    assert not any(diagnose(alone).values())
    page = io.StringIO()
    show(diagnose(alone), alone, Console(width=200, file=page))
    assert "Workers come with the trials" in page.getvalue()
    without_gpu = replace(HEALTHY, nodes=[head, replace(GOOD, gpus=0.0, torch_gpus=None)])
    assert [name for name, problems in diagnose(without_gpu).items() if problems] == ["GPU"]


def test_with_a_bucket_each_node_has_a_folder_of_its_own() -> None:
    facts = replace(HEALTHY, nodes=[HEALTHY.nodes[0], replace(GOOD, sees_mark=False)], storage_is_shared=False)
    assert not any(diagnose(facts).values())


def test_one_machine_needs_neither_server_nor_token() -> None:
    node = replace(HEALTHY.nodes[0], address="127.0.0.1", auth_mode="")
    alone = replace(HEALTHY, nodes=[node], tracking_uri=None, gpus_wanted=0.0)
    assert not any(diagnose(alone).values())


def question(**changes: object) -> dict[str, object]:
    token = secrets.token_hex(4)
    asked = {"storage": None, "shared": True, "weights": None, "gpus": 0, "token": token, "mark": f".mark-{token}"}
    return {**asked, "fetch": {}, "card": CARD_NAME, "mirror": None, **changes}


def test_a_machine_tells_what_it_is(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"w")
    shared = tmp_path / "shared"
    shared.mkdir()
    asked = question(storage=str(shared), weights=str(weights))
    write_mark(str(shared), str(asked["mark"]))
    answer = examine_node(asked)
    assert answer["versions"]["ray"] == ray.__version__
    assert answer["python"] == platform.python_version()
    assert answer["weights"] == hashlib.sha256(b"w").hexdigest()
    assert answer["sees_mark"] is True
    assert answer["shm_bytes"] > 0
    remove_mark(str(shared), str(asked["mark"]))
    assert not list(shared.iterdir())
    assert examine_node(asked)["sees_mark"] is False


def test_what_is_missing_is_said_not_raised(tmp_path: Path) -> None:
    answer = examine_node(question(storage=str(tmp_path / "no"), weights=str(tmp_path / "neither")))
    assert "No such file" in answer["storage_error"]
    assert "No such file" in answer["weights_error"]
    (tmp_path / "file").touch()
    write_mark(str(tmp_path / "file"), "mark")
    remove_mark(str(tmp_path / "file"), "mark")


def test_a_folder_that_no_sweep_has_made_yet_is_no_fault(tmp_path: Path) -> None:
    asked = question(storage=str(tmp_path / "shared" / "runs"))
    write_mark(str(asked["storage"]), str(asked["mark"]))
    answer = examine_node(asked)
    assert "storage_error" not in answer
    assert answer["sees_mark"] is True


def test_what_comes_from_a_bucket_need_not_be_there_but_must_come(tmp_path: Path) -> None:
    place = tmp_path / "bucket"
    place.mkdir()
    (place / "vit_b.pth").write_bytes(b"w")
    weights = str(tmp_path / "vit_b.pth")
    fetch = {weights: f"file://{place}/vit_b.pth"}
    asked = question(storage=str(tmp_path / "own" / "runs"), shared=False, weights=weights, fetch=fetch)
    answer = examine_node({**asked, "mirror": f"file://{place}/states"})
    assert not answer.keys() & {"weights_error", "storage_error"}
    assert answer["bucket_errors"] == []
    assert not list((place / "states").iterdir())

    wrong = {"fetch": {weights: f"file://{place}/vit_l.pth"}, "mirror": f"file://{place}/vit_b.pth/states"}
    missing, refused = examine_node({**asked, **wrong})["bucket_errors"]
    assert "vit_l.pth: no file or data set is there" in missing
    assert "vit_b.pth/states cannot be written to" in refused
    (strange,) = examine_node({**asked, "mirror": "s4://lab/states"})["bucket_errors"]
    assert "s4" in strange


def test_what_doctor_asks_of_a_sweep_with_buckets() -> None:
    settings = {"data": "unused", "resources": {"mirror": "s3://lab/states", "fetch": {"/tmp/w": "s3://lab/w"}}}
    asked = _wishes(parse_sweep_config(settings, [], source="test"))
    assert (asked["shared"], asked["mirror"]) == (False, "s3://lab/states")
    assert asked["fetch"] == {"/tmp/w": "s3://lab/w"}


def test_a_tracking_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    found = examine_tracking("http://127.0.0.1:9", "doctor")
    assert found["uri"] == "http://127.0.0.1:9"
    assert found["tracking_error"]


def test_a_database_is_judged_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    assert examine_tracking(None, "doctor") == {"uri": "sqlite:///x.db", "tracking_error": None}


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """A real cluster of one node."""
    session = ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=1,
        num_gpus=0,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield session.address_info["gcs_address"]
    ray.shutdown()


@pytest.mark.slow
def test_a_real_cluster_is_examined(head: str, tmp_path: Path) -> None:
    weights = tmp_path / "vit_b.pth"
    weights.write_bytes(b"not what they should be")
    settings = {"data": "unused", "storage": str(tmp_path), "run": {"model": {"name": "vit_b"}}}
    settings["run"]["model"]["checkpoint"] = str(weights)
    settings["tracking"] = {"uri": "http://127.0.0.1:9"}
    config = parse_sweep_config(settings, [], source="test")
    facts = gather(head, config, timeout_s=GENEROUS_S)
    (node,) = facts.nodes
    assert node.silence is None, node.silence
    assert (node.ray, node.infosam, node.is_head) == (ray.__version__, version("infosam"), True)
    assert node.sees_mark is True
    found = {name for name, problems in diagnose(facts).items() if problems}
    assert {"MLflow", "weights"} <= found
    assert not found & {"all nodes answer", "same Ray and Python", "same infosam", "storage is writable", "clock"}
    assert [path.name for path in tmp_path.iterdir()] == ["vit_b.pth"]
