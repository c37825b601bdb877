"""`infosam cluster init`: questions, the file they make, and what is made beside it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from cluster.access import is_here, token_file, with_token
from cluster.cli import register
from cluster.templates import TARGETS, filled
from infosam.errors import UserError

FOLDER = Path(__file__).parents[2] / "cluster"
ANSWERS: dict[str, dict[str, str]] = {
    "onprem": {
        "tracking": "http://mlflow.lab:5000",
        "head": "192.168.7.1",
        "nodes": "192.168.7.2,192.168.7.3",
        "user": "ada",
        "environment": "/srv/venv",
        "storage": "/srv/shared",
    },
    "aws": {
        "image": "999999999999.dkr.ecr.eu-west-1.amazonaws.com/seg:2.0.0",
        "zone": "eu-west-1b",
        "ami": "ami-0123456789abcdef0",
        "subnet": "subnet-0123456789abcdef0",
        "group": "sg-0123456789abcdef0",
        "folder": "fs-0123456789abcdef0",
        "instance": "g5.xlarge",
        "workers": "3",
        "tracking": "https://mlflow.lab",
    },
    "gcp": {
        "project": "some-lab-42",
        "zone": "europe-west4-b",
        "folder": "10.1.2.3:/share",
        "workers": "5",
        "tracking": "http://10.9.9.9:5000",
    },
}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No key or token of the user is seen or made."""
    home = tmp_path / "person"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return home


def call(*arguments: str, answers: str | None = None) -> Any:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["cluster", "init", *arguments], input=answers)


def given(target: str) -> list[str]:
    return [word for key, value in ANSWERS[target].items() for word in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("target", TARGETS)
def test_each_example_stands_in_the_shipped_file(target: str) -> None:
    text = (FOLDER / TARGETS[target].file).read_text(encoding="utf-8")
    for question in TARGETS[target].questions:
        assert question.example in text, question.key
    assert {question.key for question in TARGETS[target].questions} == set(ANSWERS[target])


@pytest.mark.parametrize("target", TARGETS)
def test_the_file_is_valid_and_holds_no_example_any_more(target: str, tmp_path: Path) -> None:
    out = tmp_path / "lab.yaml"
    result = call(target, str(out), "--name", "lab-1", *given(target))
    assert result.exit_code == 0, result.output
    text = out.read_text(encoding="utf-8")
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    assert config["cluster_name"] == "lab-1"
    for question in TARGETS[target].questions:
        assert ANSWERS[target][question.key].split(",")[0] in text
        if not question.has_default:
            assert question.example not in text, question.key
    for example in ("AAAA-THE", "123456789012", "us-east-1", "us-central1", "clusters/infosam", "my-project"):
        assert example not in text
    comments = (FOLDER / TARGETS[target].file).read_text(encoding="utf-8").count("#")
    assert text.count("#") == comments


def test_region_registry_and_roles_of_amazon_follow() -> None:
    config = yaml.safe_load(filled(TARGETS["aws"], "lab", ANSWERS["aws"]))
    assert (config["provider"]["region"], config["provider"]["availability_zone"]) == ("eu-west-1", "eu-west-1b")
    commands = " ".join(config["initialization_commands"])
    assert "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com" in commands
    assert "--region eu-west-1" in commands
    assert "--password-stdin 999999999999.dkr.ecr.eu-west-1.amazonaws.com" in commands
    worker = config["available_node_types"]["gpu_spot"]
    assert worker["node_config"]["IamInstanceProfile"] == {"Name": "lab-worker"}
    assert worker["max_workers"] == config["max_workers"] == 3


def test_region_and_registry_of_google_follow() -> None:
    config = yaml.safe_load(filled(TARGETS["gcp"], "lab", ANSWERS["gcp"]))
    registry = f"{config['provider']['region']}-docker.pkg.dev"
    assert config["docker"]["image"].startswith(f"{registry}/")
    assert f"gcloud auth configure-docker {registry} --quiet" in config["initialization_commands"]


def test_token_and_key_are_made_once_and_for_this_user_only(tmp_path: Path, own_home: Path) -> None:
    out = tmp_path / "lab.yaml"
    assert call("onprem", str(out), "--name", "lab", *given("onprem")).exit_code == 0
    folder = own_home / ".infosam" / "clusters" / "lab"
    token, key = (folder / "secrets" / "auth_token"), folder / "key"
    assert len(token.read_text()) == 64
    for path in (token, key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = token.read_text(), key.read_text()
    assert call("onprem", str(out), "--name", "lab", "--overwrite", *given("onprem")).exit_code == 0
    assert (token.read_text(), key.read_text()) == before
    assert token.read_text() not in out.read_text()


def test_what_is_not_given_is_asked_and_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "lab.yaml"
    answers = "http://mlflow:5000\nnot an address\n10.1.1.1\n10.1.1.2\n\n\n\n"
    result = call("onprem", str(out), answers=answers)
    assert result.exit_code == 0, result.output
    assert "does not look like" in result.output
    config = yaml.safe_load(out.read_text())
    assert config["provider"] == {"type": "local", "head_ip": "10.1.1.1", "worker_ips": ["10.1.1.2"]}
    assert config["auth"]["ssh_user"] == "infosam"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["azure"], "onprem, aws, gcp"),
        (["aws", "--set", "colour=red"], "colour is no question"),
        (["aws", "--set", "ami=latest"], "does not look like ami-"),
        (["onprem", "--name", "Lab"], "small letters"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_made(arguments: list[str], words: str, own_home: Path) -> None:
    result = call(arguments[0], "never.yaml", *arguments[1:])
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)
    assert not (own_home / ".infosam").exists()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    out = tmp_path / "lab.yaml"
    out.write_text("mine")
    result = call("onprem", str(out), *given("onprem"))
    assert isinstance(result.exception, UserError)
    assert out.read_text() == "mine"


def test_a_token_is_given_to_its_cluster_only(own_home: Path) -> None:
    assert with_token({}, "10.0.0.1:6379") == {}
    assert with_token({"RAY_AUTH_MODE": "disabled"}, "127.0.0.1:1", name="x") == {"RAY_AUTH_MODE": "disabled"}
    with pytest.raises(UserError, match="no token for cluster 'lab'"):
        with_token({}, "10.0.0.1:6379", name="lab")
    path = token_file("lab")
    path.parent.mkdir(parents=True)
    path.write_text("secret")
    assert with_token({}, "10.0.0.1:6379") == {}
    expected = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    assert with_token({}, "10.0.0.1:6379", name="lab") == expected
    (own_home / ".ray").mkdir()
    (own_home / ".ray" / "auth_token").write_text("mine")
    assert with_token({}, "10.0.0.1:6379") == {}
    assert with_token({}, "http://127.0.0.1:8265") == {"RAY_AUTH_MODE": "token"}


def test_which_addresses_are_of_this_machine() -> None:
    assert is_here("127.0.0.1:6379")
    assert is_here("http://127.0.0.1:8265/")
    assert not is_here("ray://127.0.0.1:10001")
    assert not is_here("192.0.2.1:6379")
