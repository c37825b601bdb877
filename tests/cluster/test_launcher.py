"""The whole way with Ray's launcher: a person's machine, a head and a worker, each with an sshd and an address of its
own; `init`, `ray up`, a sweep of real trainings, its champion fetched by somebody who is not part of it, `ray down`."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from machines import Machine, Missing, Network, program
from mlflow import MlflowClient
from PIL import Image
from servers import MlflowServer

from infosam.data.store import import_dataset
from infosam.synthetic.domains import write_demo_domain

SWEEP_FILE = Path(__file__).parents[2] / "tune" / "sweep.py"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TUNNEL_S = 60
NODES_S = 300
PATIENCE_S = 900
SSHD = """
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
ForceCommand {folder}/{name}/enter
"""
# A machine's own home, though all of them share this one's files; as a log-in would, it runs what it was sent.
ENTER = """#!/bin/bash
export HOME={home} PYTHONPATH={path}
cd "$HOME"
exec bash -c "$SSH_ORIGINAL_COMMAND"
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A cluster that is up, and the person who started it."""

    desk: Machine
    head: Machine
    worker: Machine
    file: Path
    shared: Path
    person: Mapping[str, str]  # environment
    tracking: MlflowServer

    def type(self, *command: str, check: bool = True, **changes: str) -> subprocess.CompletedProcess[str]:
        """What the person types."""
        return self.desk.run(*command, environment={**self.person, **changes}, timeout=PATIENCE_S, check=check)


def settle(machine: Machine, home: Path) -> None:
    """Gives root a home of its own there, for ssh too, to which ~ is where the user database says."""
    home.mkdir(parents=True)
    lines = Path("/etc/passwd").read_text().splitlines()
    own = home.with_name(f"{home.name}-passwd")
    own.write_text("".join(re.sub("^(root:.*):.*:(.*)$", rf"\1:{home}:\2", line) + "\n" for line in lines))
    machine.run("mount", "--bind", str(own), "/etc/passwd")


def with_sshd(machine: Machine, folder: Path, environment: Mapping[str, str], stack: ExitStack) -> None:
    """Lets the holder of the key in."""
    own = folder / machine.name
    home = own / "home"
    settle(machine, home)
    enter = own / "enter"
    enter.write_text(ENTER.format(home=home, path=environment["PYTHONPATH"]))
    enter.chmod(0o755)
    settings = own / "sshd_config"
    settings.write_text(SSHD.format(address=machine.address, folder=folder, name=machine.name))
    Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
    log = stack.enter_context((own / "log").open("wb"))
    daemon = machine.start(program("sshd"), "-D", "-e", "-f", str(settings), stderr=log)
    stack.callback(daemon.wait)
    stack.callback(daemon.kill)


def tunnel(lab: Lab, port: int, stack: ExitStack) -> None:
    """`port` of the head's loopback on that of the desk."""
    key = Path(lab.person["HOME"]) / ".infosam" / "clusters" / "lab" / "key"
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes"]
    forward = f"{port}:127.0.0.1:{port}"
    command = ["ssh", "-N", "-i", str(key), *options, "-L", forward, f"root@{lab.head.address}"]
    process = lab.desk.start(*command, environment=lab.person, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline = time.monotonic() + TUNNEL_S
    while lab.desk.run("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}", check=False).returncode:
        assert time.monotonic() < deadline, f"no tunnel to port {port}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def lab(
    net: Network,
    plain: Mapping[str, str],
    start_tracking: Callable[[Machine, Path, ExitStack], MlflowServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """`infosam cluster init`, the key let in everywhere, `ray up`; at the end `ray down`, which must leave nothing."""
    folder = tmp_path_factory.mktemp("lab")
    shared = folder / "shared"
    shared.mkdir()
    person = {**plain, "HOME": str(folder / "person")}
    desk, head, worker = net.machine("desk"), net.machine("head"), net.machine("worker")
    settle(desk, folder / "person")
    with ExitStack() as stack:
        try:
            for name in ("sshd", "rsync", "ssh-keygen"):
                program(name)
        except Missing as missing:
            pytest.skip(str(missing))
        tracking = start_tracking(head, folder, stack)
        file = folder / "lab.yaml"
        answers = {
            "tracking": tracking.uri,
            "head": head.address,
            "nodes": worker.address,
            "user": "root",
            "environment": str(Path(shutil.which("ray", path=plain["PATH"]) or "").parents[1]),
            "storage": str(shared),
        }
        given = [word for key, answer in answers.items() for word in ("--set", f"{key}={answer}")]
        desk.run("infosam", "cluster", "init", "onprem", str(file), "--name", "lab", *given, environment=person)
        keys = folder / "person" / ".infosam" / "clusters" / "lab"
        shutil.copyfile(keys / "key.pub", folder / "authorized_keys")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key")], check=True)
        for machine in (head, worker):
            with_sshd(machine, folder, plain, stack)
        lab = Lab(
            desk=desk, head=head, worker=worker, file=file, shared=shared, person=person, tracking=tracking
        )  # fmt: skip
        try:
            lab.type("ray", "up", "-y", "--no-config-cache", str(file))
            tunnel(lab, int(tracking.uri.rpartition(":")[2]), stack)
            yield lab
        finally:
            lab.type("ray", "down", "-y", str(file))
            for machine in (head, worker):
                assert "raylet" not in machine.run("ps", "ax").stdout


@pytest.fixture(scope="module")
def config(lab: Lab) -> Path:
    """Four trials on spores, in the shared folder, on a canvas that is too small for the adapter-free model."""
    images = write_demo_domain(lab.shared / "images", seed=0, train=16, val=8, test=4, image_px=96)
    import_dataset(images, domain="spores", out=lab.shared / "spores", seed=0)
    settings = {
        "data": str(lab.shared / "spores"),
        "run": {"model": {"image_px": 64}, "train": {"epochs": 4, "batch_size": 4}},
        "space": {"peft.rank": {"choice": [2, 4]}, "optim.lr": {"log_uniform": [1e-3, 2e-3]}},
        "scheduler": {"kind": "none"},
        "search": {"trials": 4, "points": []},
        "warm_start": "off",
        "resources": {"stores": {"build": False}},
    }
    path = lab.shared / "spores.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def on_head(lab: Lab, command: str) -> str:
    """`ray exec`: what a shell on the head prints, less its colours, since it has a terminal there."""
    return COLOUR.sub("", lab.type("ray", "exec", str(lab.file), command).stdout)


def wait_for_nodes(lab: Lab, count: int) -> None:
    """The head's autoscaler starts workers after `ray up` has returned."""
    deadline = time.monotonic() + NODES_S
    while f"{count} of {count} nodes up" not in (told := on_head(lab, "infosam cluster status --timeout 60")):
        assert time.monotonic() < deadline, told
        time.sleep(2)


def test_doctor_finds_a_cluster_of_the_launcher_sound(lab: Lab, config: Path) -> None:
    """Also says that the token, the environment and the folder have reached the worker."""
    wait_for_nodes(lab, 2)
    told = on_head(lab, f"infosam cluster doctor {config} --timeout 120")
    assert "2 nodes" in told
    assert "to mend" not in told


def test_a_sweep_by_ray_submit_gives_a_champion_to_people_elsewhere(lab: Lab, config: Path, tmp_path: Path) -> None:
    told = lab.type(
        "ray", "submit", str(lab.file), str(SWEEP_FILE), "--", "--config", str(config), "--once", "spores"
    ).stdout
    assert "Champion of spores" in COLOUR.sub("", told), told
    with lab.head.inside():
        client = MlflowClient(tracking_uri=lab.tracking.uri)
        (experiment,) = [one for one in client.search_experiments() if one.name == "infosam"]
        runs = client.search_runs([experiment.experiment_id], "tags.sweep_id = 'spores'")
        trials = [run for run in runs if "trial_id" in run.data.tags]
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert len(trials) == 4
        champion = client.get_model_version_by_alias("infosam-spores", "champion")
        assert champion.tags["sweep_id"] == "spores"

    images = tmp_path / "new"
    images.mkdir()
    picture = next((lab.shared / "images" / "images").glob("test_*.png"))
    shutil.copyfile(picture, images / "one.png")
    elsewhere = {"MLFLOW_TRACKING_URI": lab.tracking.uri, "INFOSAM_HOME": str(tmp_path / "elsewhere")}
    lab.type("infosam", "predict", "--domain", "spores", str(images), "--out", str(tmp_path / "out"), **elsewhere)
    with Image.open(tmp_path / "out" / "masks" / "one.png") as mask, Image.open(picture) as asked:
        assert mask.size == asked.size


def test_the_same_as_a_job_with_a_token(lab: Lab, config: Path) -> None:
    """Through a tunnel to the dashboard, which answers nobody without the token."""
    with ExitStack() as stack:
        tunnel(lab, 8265, stack)
        submit = ["infosam", "cluster", "submit", str(config), "spores-job", "run.train.epochs=1"]
        refused = lab.type(*submit, check=False)
        assert refused.returncode == 2
        assert "--cluster NAME" in refused.stdout + refused.stderr
        job = lab.type(*submit, "--cluster", "lab").stdout.split(":")[0]
        told = lab.type("infosam", "cluster", "logs", job, "--follow", "--cluster", "lab").stdout
        assert told.rstrip().endswith("SUCCEEDED"), told
    with lab.head.inside():
        client = MlflowClient(tracking_uri=lab.tracking.uri)
        experiment = client.get_experiment_by_name("infosam")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], "tags.sweep_id = 'spores-job'")
        assert [run.info.status for run in runs] == ["FINISHED"] * 5
    again = on_head(lab, shlex.join(["python", "-m", "tune.sweep", "--config", str(config), "--once", "spores"]))
    assert "is over: nothing to do" in again
