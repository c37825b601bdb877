"""The image and the Slurm script: pinned, not root, and in the words that the installed Ray understands."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from ray.scripts.scripts import cli, start
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
SBATCH = ROOT / "cluster" / "slurm" / "sweep.sbatch"


def test_images_are_pinned_and_the_last_user_is_not_root() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert images
    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in images)
    assert re.findall(r"^USER (\w+)", DOCKERFILE, flags=re.MULTILINE)[-1] == "infosam"
    assert "--uid 1000" in DOCKERFILE  # the manifests run it as that
    assert "ADD http" not in DOCKERFILE


def test_the_image_has_the_python_of_compose_and_the_tested_packages() -> None:
    compose = (ROOT / "cluster" / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"FROM (\S+)", DOCKERFILE)) == set(re.findall(r"FROM (\S+)", compose))
    assert "-c constraints.txt" in DOCKERFILE
    extras = re.search(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    assert extras
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(r"^cuda-toolkit==", pins, flags=re.MULTILINE)  # CUDA comes with torch's wheels


def test_the_image_gets_what_it_is_made_of_and_nothing_else() -> None:
    lines = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copied = {
        word.split("/")[0]
        for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, flags=re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)
    assert rules[-1] == "cluster/.env"


def test_the_shell_script_is_sound() -> None:
    checker = Path(sysconfig.get_path("scripts")) / "shellcheck"
    done = subprocess.run([checker, SBATCH], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def joined() -> str:
    return SBATCH.read_text(encoding="utf-8").replace("\\\n", " ")


def test_ray_knows_the_command_and_its_options() -> None:
    assert "symmetric-run" in cli.commands
    line = next(line for line in joined().splitlines() if "ray symmetric-run" in line)
    options = re.findall(r"--[\w-]+", line.split("ray symmetric-run")[1].split(" -- ")[0])
    assert {"--address", "--min-nodes"} <= set(options)
    known = {name for option in start.params for name in option.opts}
    forwarded = [option for option in options if option not in ("--address", "--min-nodes")]
    assert set(forwarded) <= known
    arguments = [word for option in forwarded for word in (option, "1")]
    assert curate_and_validate_ray_start_args(["--address", "a:1", "--min-nodes", "2", *arguments]) == arguments
    # Ray refuses these on nodes that are not the head, and all nodes get the same.
    assert not [option for option in forwarded if re.search("dashboard|autoscaling|node-ip|port", option)]


def test_a_job_that_is_queued_again_goes_on() -> None:
    text = joined()
    assert "#SBATCH --requeue" in text
    assert "#SBATCH --open-mode=append" in text
    assert re.search(r"python -m tune\.sweep --config \S+ --once ", text)
    assert "RAY_AUTH_MODE=token" in text


# In place of Slurm's commands, and of what a node says about itself.
COMMANDS = {
    "scontrol": 'echo "node1"; echo "node2"',
    "getent": 'printf "%s\\n" $ADDRESSES_OF_NAME; test -n "$ADDRESSES_OF_NAME"',
    "hostname": 'echo "fd00::2 127.0.0.1 10.0.0.7 172.17.0.1 "',
    "srun": 'printf "%s\\n" "$@"',
}


@pytest.mark.parametrize(
    ("by_name", "expected"),
    [("10.0.0.5", "10.0.0.5"), ("127.0.1.1", "10.0.0.7"), ("127.0.1.1 10.0.0.6", "10.0.0.6"), ("", "10.0.0.7")],
)
def test_nodes_are_given_an_address_that_is_not_of_one_machine_only(
    by_name: str, expected: str, tmp_path: Path
) -> None:
    """Debian's /etc/hosts calls a machine itself 127.0.1.1."""
    for name, body in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2",
           "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_PER_NODE": "l4:2"}  # fmt: skip
    here = {"PATH": f"{tmp_path}:/usr/bin:/bin", "INFOSAM_ENVIRONMENT": str(tmp_path), "ADDRESSES_OF_NAME": by_name}
    done = subprocess.run(
        ["bash", SBATCH, "polyp.yaml", "polyp"], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        check=False, env={**here, **job},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[words.index("--address") + 1] == f"{expected}:20007"
    assert words[words.index("--num-gpus") + 1] == "2"
    assert "resources.slots=4" in words
    assert "--cpus-per-task=8" in words[: words.index("ray")]  # a step does not take it over from its job
    assert not list((tmp_path / "infosam-runs").iterdir())  # the token is gone


def test_it_says_how_it_is_called(tmp_path: Path) -> None:
    done = subprocess.run(["bash", SBATCH], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "CONFIG NAME" in done.stderr


def test_the_command_it_runs_exists() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tune.sweep", "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0
    assert "--once NAME" in done.stdout
