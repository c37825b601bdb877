"""What can be wrong with a cluster before a sweep, each with its cure: one small function per check, all in CHECKS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tune.stores import UnfitStore, check_store

LARGEST_CLOCK_ERROR_S = 30.0
"""Includes the time an answer takes on a busy machine. Object stores and TLS refuse clocks that are minutes off."""
SMALLEST_SHM_GIB = 1.0
"""Images and messages go through shared memory; below this a trial's loaders can die with `Bus error`."""
OLDEST_DRIVERS = {13: 580, 12: 525}
"""First driver of each major version of CUDA, from NVIDIA's table of minor version compatibility."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """What one machine answered; None is what was not asked or not found."""

    address: str
    is_head: bool = False
    gpus: float = 0.0  # that Ray offers
    python: str = ""
    ray: str | None = None
    infosam: str | None = None
    torch: str | None = None
    cuda: str | None = None  # version that torch was built for
    torch_gpus: int | None = None
    driver: str | None = None
    driver_error: str | None = None
    auth_mode: str = ""
    shm_bytes: int = 0
    sees_mark: bool | None = None
    storage_error: str | None = None
    bucket_errors: Sequence[str] = ()  # an address with what went wrong there
    weights: str | None = None  # SHA-256
    weights_error: str | None = None
    grows: bool = False  # it was told that nodes come with the trials
    clock_error_s: float = 0.0  # ours subtracted from theirs
    silence: str | None = None  # why there is no answer


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A cluster, and what the sweep wants of it."""

    nodes: Sequence[NodeFacts]
    client_ray: str
    client_python: str
    client_infosam: str
    storage: str | None = None
    storage_is_shared: bool = True  # by all nodes, as the sweep wants it
    weights_path: str | None = None
    weights_sha256: str | None = None  # that the weights should have
    gpus_wanted: float = 0.0  # by one worker
    tracking_uri: str | None = None
    tracking_error: str | None = None
    answered: Sequence[NodeFacts] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answered", [node for node in self.nodes if node.silence is None])

    @property
    def workers_are_to_come(self) -> bool:
        """Whether nodes come with the trials, and none is up yet: then those that will train cannot be examined."""
        return any(node.grows for node in self.answered) and all(node.is_head for node in self.nodes)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to mend."""

    where: str
    what: str
    cure: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """A question about a cluster, and how its answer is judged."""

    name: str
    find: Callable[[Facts], Iterator[Problem]]


def _answers(facts: Facts) -> Iterator[Problem]:
    for node in facts.nodes:
        if node.silence is not None:
            yield Problem(
                where=node.address,
                what=f"did not answer: {node.silence}",
                cure="give --timeout more seconds; if that does not help, look into /tmp/ray/session_latest/logs there",
            )


def _ray_and_python(facts: Facts) -> Iterator[Problem]:
    mine = (facts.client_ray, facts.client_python)
    for node in facts.answered:
        if (node.ray, node.python) != mine:
            yield Problem(
                where=node.address,
                what=f"Ray {node.ray} on Python {node.python}, here {mine[0]} on {mine[1]}: tasks cannot be exchanged",
                cure="install the same on all: one image (cluster/Dockerfile), or `pip install -c constraints.txt` on "
                "the same Python",
            )


def _package(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered:
        if node.infosam != facts.client_infosam:
            found = "not installed" if node.infosam is None else node.infosam
            yield Problem(
                where=node.address,
                what=f"infosam is {found}, here {facts.client_infosam}",
                cure=f"install infosam {facts.client_infosam} in the Python that starts Ray there",
            )


def _gpu(facts: Facts) -> Iterator[Problem]:
    if facts.gpus_wanted and not any(node.gpus for node in facts.nodes) and not facts.workers_are_to_come:
        yield Problem(
            where="cluster",
            what="no node offers a GPU, but the sweep wants one (resources.gpus_per_worker)",
            cure="start GPU nodes, or set resources.gpus_per_worker=0; where nodes come with the trials, set "
            "INFOSAM_CLUSTER_GROWS=1 on the head",
        )
    for node in facts.answered:
        if node.gpus and node.torch_gpus == 0:
            yield Problem(
                where=node.address,
                what=f"Ray offers {node.gpus:g} GPU, torch sees none",
                cure="install a build of torch with CUDA, and give the container its GPUs (`docker run --gpus all`, "
                "NVIDIA's container toolkit)",
            )


def _driver(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered:
        if node.driver_error:
            yield Problem(
                where=node.address,
                what=f"nvidia-smi fails: {node.driver_error}",
                cure="restart the machine, or install NVIDIA's driver again: kernel module and library differ",
            )
        major = int(node.cuda.partition(".")[0]) if node.cuda else None
        oldest = OLDEST_DRIVERS.get(major, 0) if major else 0
        found = re.match(r"\d+", node.driver or "")
        if found and int(found[0]) < oldest:
            yield Problem(
                where=node.address,
                what=f"driver {node.driver} is too old for CUDA {node.cuda}",
                cure=f"install NVIDIA driver {oldest} or newer, or a torch built for an older CUDA",
            )


def _storage_is_writable(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered:
        if node.storage_error:
            yield Problem(
                where=node.address,
                what=f"{facts.storage} cannot be written to: {node.storage_error}",
                cure="mount the shared folder there, and let the user that runs Ray write to it",
            )


def _storage_is_shared(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered if facts.storage_is_shared else ():
        if node.sees_mark is False and not node.storage_error:
            yield Problem(
                where=node.address,
                what=f"{facts.storage} there is not the folder that the head sees under this name",
                cure="mount the same file system on all nodes; a folder of the machine itself loses the checkpoints",
            )


def _bucket(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered:
        for error in node.bucket_errors:
            yield Problem(
                where=node.address,
                what=error,
                cure="correct resources.mirror or resources.fetch, and give all nodes credentials for it: a role, or "
                "variables of their environment",
            )


def _tracking(facts: Facts) -> Iterator[Problem]:
    if facts.tracking_error:
        yield Problem(
            where="head",
            what=f"MLflow at {facts.tracking_uri} cannot be written to: {facts.tracking_error}",
            cure="start the server, open its port to the head, allow its name (--allowed-hosts), and give the head "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of a user who may create experiments",
        )
    elif facts.tracking_uri is not None:
        try:
            check_store(facts.tracking_uri, nodes=len(facts.nodes))
        except UnfitStore as error:
            yield Problem(where="head", what=str(error).partition(";")[0], cure="use a server (docs/tracking.md)")
    elif len(facts.nodes) > 1:
        yield Problem(
            where="head",
            what="no MLflow server is named, and a database file cannot serve several nodes",
            cure="set MLFLOW_TRACKING_URI on the head, or tracking.uri in the sweep, to a server (docs/tracking.md)",
        )


def _clock(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered:
        if abs(node.clock_error_s) > LARGEST_CLOCK_ERROR_S:
            yield Problem(
                where=node.address,
                what=f"its clock is {abs(node.clock_error_s):.0f} s {'ahead' if node.clock_error_s > 0 else 'behind'}",
                cure="switch time synchronisation on: timedatectl set-ntp true, or chrony",
            )


def _token(facts: Facts) -> Iterator[Problem]:
    if len(facts.nodes) == 1 and facts.nodes[0].address in ("127.0.0.1", "::1"):
        return
    for node in facts.answered:
        if node.auth_mode != "token":
            yield Problem(
                where=node.address,
                what="Ray runs without token authentication: whoever reaches its ports can run programs there",
                cure="start Ray with RAY_AUTH_MODE=token and the same token on all nodes, as the files of "
                "`infosam cluster init` do",
            )


def _weights(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered:
        if node.weights_error:
            yield Problem(
                where=node.address,
                what=f"weights are missing: {node.weights_error}",
                cure=f"put the file at {facts.weights_path} on all nodes, best in the shared folder",
            )
        elif node.weights and facts.weights_sha256 and node.weights != facts.weights_sha256:
            yield Problem(
                where=node.address,
                what=f"{facts.weights_path} has SHA-256 {node.weights[:12]}..., not {facts.weights_sha256[:12]}...",
                cure="the file is damaged or another one: copy it again from its publisher",
            )


def _shared_memory(facts: Facts) -> Iterator[Problem]:
    for node in facts.answered:
        if node.shm_bytes < SMALLEST_SHM_GIB * GIB:
            yield Problem(
                where=node.address,
                what=f"/dev/shm has {node.shm_bytes / GIB:.2f} GiB, at least {SMALLEST_SHM_GIB:g} is needed",
                cure="give the container more: docker run --shm-size=4g, or an emptyDir of medium Memory at /dev/shm",
            )


CHECKS = (
    Check(name="all nodes answer", find=_answers),
    Check(name="same Ray and Python", find=_ray_and_python),
    Check(name="same infosam", find=_package),
    Check(name="GPU", find=_gpu),
    Check(name="driver", find=_driver),
    Check(name="storage is writable", find=_storage_is_writable),
    Check(name="storage is shared", find=_storage_is_shared),
    Check(name="bucket", find=_bucket),
    Check(name="MLflow", find=_tracking),
    Check(name="clock", find=_clock),
    Check(name="token", find=_token),
    Check(name="weights", find=_weights),
    Check(name="shared memory", find=_shared_memory),
)


def diagnose(facts: Facts) -> dict[str, list[Problem]]:
    """The problems that each check finds, by its name, in the order of CHECKS."""
    return {check.name: list(check.find(facts)) for check in CHECKS}
