"""The whole way with Ray's launcher: a person's machine, a head and a worker, each with an sshd and an address of its
own; `init`, `ray up`, sweeps on real images by `ray submit` and as jobs, their champions fetched by somebody who is not
part of it, `ray down`."""

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
from tune.event_log import NAME, read_events
from tune.events import EpochReported, SweepStarted
from tune.ledger import Ledger

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


def some_of(source: Path, target: Path, counts: Mapping[str, int]) -> Path:
    """A data set like `source`, train.csv and so on, with so many images of each split, evenly spaced."""
    target.mkdir()
    for split, count in counts.items():
        header, *rows = (source / f"{split}.csv").read_text(encoding="utf-8").splitlines()
        kept = rows[:: len(rows) // count][:count]
        (target / f"{split}.csv").write_text("\n".join([header, *kept]) + "\n")
        for name in (name for row in kept for name in row.split(",")):
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)
    return target


@pytest.fixture(scope="module")
def images(lab: Lab, test_data: Path) -> Path:
    """Some real images, in the shared folder."""
    return some_of(test_data / "road", lab.shared / "images", {"train": 60, "val": 10, "test": 4})


@pytest.fixture(scope="module")
def config(lab: Lab, images: Path) -> Path:
    """Four trials on roads that nobody points at: the untuned model finds none of them, and an ellipse few."""
    import_dataset(images, domain="road", out=lab.shared / "road")
    settings = {
        "data": str(lab.shared / "road"),
        "run": {
            "model": {"image_px": 96},
            "peft": {"kind": "adapter"},
            "prompts": {"box": 0, "point": 0, "none": 1},
            "train": {"epochs": 4, "batch_size": 4, "select": "none"},
        },
        "space": {"peft.width": {"choice": [8, 16]}, "optim.lr": {"log_uniform": [8e-4, 1.2e-3]}},
        "scheduler": {"kind": "none"},
        "search": {"trials": 4, "points": []},
        "warm_start": "off",
        "resources": {"stores": {"build": False}},
    }
    path = lab.shared / "road.yaml"
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


def check_champion(lab: Lab, sweep: str, domain: str, images: Path, folder: Path) -> None:
    """The sweep's trials are in MLflow, each once, its champion is registered, and somebody elsewhere can use it."""
    with lab.head.inside():
        client = MlflowClient(tracking_uri=lab.tracking.uri)
        (experiment,) = [one for one in client.search_experiments() if one.name == "infosam"]
        runs = client.search_runs([experiment.experiment_id], f"tags.sweep_id = '{sweep}'")
        assert [run.info.status for run in runs] == ["FINISHED"] * 5
        assert len({run.data.tags["trial_id"] for run in runs if "trial_id" in run.data.tags}) == 4
        champion = client.get_model_version_by_alias(f"infosam-{domain}", "champion")
        assert champion.tags["sweep_id"] == sweep
    folder.mkdir()
    picture = min((images / "images").iterdir())
    (folder / "new").mkdir()
    shutil.copyfile(picture, folder / "new" / "one.jpg")
    elsewhere = {"MLFLOW_TRACKING_URI": lab.tracking.uri, "INFOSAM_HOME": str(folder / "home")}
    lab.type("infosam", "predict", "--domain", domain, str(folder / "new"), "--out", str(folder / "out"), **elsewhere)
    with Image.open(folder / "out" / "masks" / "one.png") as mask, Image.open(picture) as asked:
        assert mask.size == asked.size


def test_a_sweep_by_ray_submit_gives_a_champion_to_people_elsewhere(
    lab: Lab, config: Path, images: Path, tmp_path: Path
) -> None:
    told = lab.type(
        "ray", "submit", str(lab.file), str(SWEEP_FILE), "--", "--config", str(config), "--once", "road"
    ).stdout
    assert "Champion of road" in COLOUR.sub("", told), told
    check_champion(lab, "road", "road", images, tmp_path / "elsewhere")


def test_the_same_as_a_job_with_a_token_that_is_stopped_and_goes_on(
    lab: Lab, config: Path, images: Path, tmp_path: Path
) -> None:
    """Through a tunnel to the dashboard, which answers nobody without the token; begun by `infosam cluster submit`,
    ended by `infosam cluster stop`, gone on with by `ray job submit`."""
    import_dataset(images, domain="street", out=lab.shared / "street")
    changed = tmp_path / "street.yaml"
    changed.write_text(config.read_text().replace(str(lab.shared / "road"), str(lab.shared / "street")))
    shutil.copyfile(changed, lab.shared / "street.yaml")
    log = lab.shared / "runs" / "sweeps" / "street" / NAME
    token = Path(lab.person["HOME"]) / ".infosam" / "clusters" / "lab" / "secrets" / "auth_token"
    with_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    again = ["ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--", "python", "-m", "tune.sweep",
             "--config", str(lab.shared / "street.yaml"), "--once", "street"]  # fmt: skip
    with ExitStack() as stack:
        tunnel(lab, 8265, stack)
        submit = ["infosam", "cluster", "submit", str(changed), "street", "resources.slots=1"]
        refused = lab.type(*submit, check=False)
        assert refused.returncode == 2
        assert "--cluster NAME" in refused.stdout + refused.stderr
        assert lab.type(*again, check=False).returncode != 0
        assert not log.exists()

        job = lab.type(*submit, "--cluster", "lab").stdout.split(":")[0]
        wait_until(lambda: log.exists() and epochs(log) > 0)
        assert "told to stop" in lab.type("infosam", "cluster", "stop", job, "--cluster", "lab").stdout
        wait_until(lambda: lab.type("infosam", "cluster", "logs", job, "--cluster", "lab").stdout.endswith("STOPPED\n"))
        before = epochs(log)
        assert before < 16

        told = lab.type(*again, **with_token).stdout
        assert "succeeded" in told, told
    starts = [event.resumed for event, _ in read_events(log) if isinstance(event, SweepStarted)]
    assert starts == [False, True]
    assert sum(len(trial.epochs) for trial in Ledger.replay(log).trials.values()) == 16
    check_champion(lab, "street", "street", images, tmp_path / "elsewhere")
    over = on_head(lab, shlex.join(["python", "-m", "tune.sweep", "--config", str(config), "--once", "road"]))
    assert "is over: nothing to do" in over


def epochs(log: Path) -> int:
    """How many were told so far."""
    return sum(isinstance(event, EpochReported) for event, _ in read_events(log))


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + NODES_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.5)
