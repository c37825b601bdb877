"""`infosam cluster doctor` at a real cluster of three machines that have every fault it knows, all really planted:
mounts, programs and packages of theirs are wrong, and at the end one of them stands still."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from machines import RAY_PORT, Machine, Network, start_ray

from cluster.checks import CHECKS

PATIENCE_S = 240
DEAD_S = 20
"""Long enough for sound nodes, and less than Ray takes to give up the one that stands still."""
WRONG_CLOCK = "import time\nright = time.time\ntime.time = lambda: right() + 400\n"
BROKEN_DRIVER = "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n"

# The check that finds it, the machine it finds it on, words of what it says, words of the cure.
PLANTED = [
    ("same Ray and Python", "sick", "Ray 2.9.9 on Python", "install the same on all"),
    ("same infosam", "sick", "infosam is 0.0.9", "install infosam"),
    ("GPU", "sick", "Ray offers 1 GPU, torch sees none", "build of torch with CUDA"),
    ("driver", "sick", "Driver/library version mismatch", "restart the machine"),
    ("storage is writable", "sick", "Read-only file system", "mount the shared folder there"),
    ("storage is shared", "odd", "not the folder that the head sees", "mount the same file system"),
    ("bucket", "sick", "file:///nowhere/table: no file or data set is there", "correct resources.mirror"),
    ("MLflow", "head", "http://127.0.0.1:9 cannot be written to", "start the server"),
    ("clock", "sick", "s ahead", "timedatectl set-ntp true"),
    ("token", "odd", "without token authentication", "RAY_AUTH_MODE=token"),
    ("weights", "odd", "No such file", "put the file at"),
    ("weights", "head", "has SHA-256", "copy it again from its publisher"),
    ("shared memory", "sick", "/dev/shm has 0.06 GiB", "--shm-size=4g"),
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True, kw_only=True)
class Ward:
    """The cluster, and what doctor is asked about it."""

    machines: Mapping[str, Machine]
    environment: Mapping[str, str]
    config: Path

    def doctor(self, timeout_s: int) -> str:
        """What it prints; it must find something. Ray puts the folder it is asked from first on all nodes' paths, and a
        checkout there would hide which infosam they have installed."""
        command = [
            "env",
            "-C",
            str(self.config.parent),
            "infosam",
            "cluster",
            "doctor",
            str(self.config),
            "--timeout",
            str(timeout_s),
        ]
        address = f"{self.machines['head'].address}:{RAY_PORT}"
        told = self.machines["head"].run(
            *command, "--address", address, environment=self.environment, timeout=PATIENCE_S, check=False
        )
        assert told.returncode == 1, told.stdout + told.stderr
        return told.stdout


def distribution(folder: Path, name: str, version: str) -> None:
    """What an installed package says of itself."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture(scope="module")
def ward(net: Network, plain: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder = tmp_path_factory.mktemp("ward")
    shared, wrong = folder / "shared", folder / "wrong"
    shared.mkdir()
    for name, version in (("ray", "2.9.9"), ("infosam", "0.0.9")):
        distribution(wrong, name, version)
    (wrong / "sitecustomize.py").write_text(WRONG_CLOCK)
    program = wrong / "nvidia-smi"
    program.write_text(BROKEN_DRIVER)
    program.chmod(0o755)
    weights = shared / "vit_b.pth"
    weights.write_bytes(b"half of what it should be")
    config = folder / "sweep.yaml"
    settings = {
        "data": str(shared / "nothing"),
        "storage": str(shared),
        "run": {"model": {"name": "vit_b", "checkpoint": str(weights)}},
        "resources": {"gpus_per_worker": 1, "fetch": {str(folder / "table"): "file:///nowhere/table"}},
        "tracking": {"uri": "http://127.0.0.1:9"},
    }
    config.write_text(yaml.safe_dump(settings))

    machines = {name: net.machine(name) for name in ("head", "sick", "odd")}
    machines["sick"].run("mount", "--bind", str(shared), str(shared))
    machines["sick"].run("mount", "-o", "remount,bind,ro", str(shared))
    machines["sick"].run("mount", "-o", "remount,size=64m", "/dev/shm")
    machines["odd"].run("mount", "-t", "tmpfs", "tmpfs", str(shared))
    sound = {**plain, "RAY_AUTH_MODE": "disabled"}
    unsound = {
        **sound,
        "PATH": f"{wrong}:{sound['PATH']}",
        "PYTHONPATH": f"{wrong}:{sound['PYTHONPATH']}",
    }
    start_ray(machines["head"], environment=sound)
    start_ray(machines["sick"], "--num-gpus=1", head=machines["head"], environment=unsound)
    start_ray(machines["odd"], head=machines["head"], environment=sound)
    return Ward(machines=machines, environment=sound, config=config)


def test_every_planted_fault_is_found_where_it_is_and_its_cure_named(ward: Ward) -> None:
    told = ward.doctor(150)
    lines = told.splitlines()
    for check, name, what, cure in PLANTED:
        where = "head" if check == "MLflow" else ward.machines[name].address
        found = [number for number, line in enumerate(lines) if line.startswith(f"{check} {where}: ") and what in line]
        assert len(found) == 1, (check, name, told)
        assert cure in lines[found[0] + 1], (check, name, told)
    assert {check for check, *_ in PLANTED} == {check.name for check in CHECKS} - {"all nodes answer"}
    assert re.search(r"all nodes answer\s.*good", told)


def test_a_node_that_stands_still_is_named(ward: Ward) -> None:
    ward.machines["odd"].run("bash", "-c", "kill -STOP $(pidof raylet)")
    told = ward.doctor(DEAD_S)
    assert f"all nodes answer {ward.machines['odd'].address}: did not answer" in told
    assert "give --timeout more seconds" in told
