"""What a trial may use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from infosam.config import Strict


class StoresConfig(Strict):
    """Where the work of frozen models, and decoded images, are kept on each machine; see docs/caches.md."""

    build: bool = True
    """Make what the trials will share before the first of them starts; false: every process keeps its own in memory."""
    folder: Path | None = None
    """Folder on a disk of each machine; default: encodings/ in the results folder. Each machine has a folder of its
    own below it, so that a shared disk does no harm."""
    limit_gib: float = Field(default=20, gt=0)
    """Largest size of a machine's folder in GiB; what was unused for longest makes room."""


class ResourceConfig(Strict):
    """What one trial may use, and how many run at once."""

    slots: int | Literal["auto"] = "auto"
    """Trials at a time; auto: as many as the cluster holds, more when nodes join and fewer when they are lost."""
    workers_per_trial: int = Field(default=1, ge=1)
    """Training processes of one trial; they divide each batch among them and do together what one would do."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """Processor cores reserved for a worker; whole cores are also its number of torch threads."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs reserved for a worker; a fraction lets several trials share one, 0 trains on the processor."""
    memory_gib_per_worker: float = Field(default=0, ge=0)
    """Main memory reserved for a worker in GiB; 0: not reserved."""
    fetch: dict[str, str] = Field(default_factory=dict)
    """Files that each machine fetches once before it trains, where there is no shared folder: path on the machine ->
    address of a data set or file (s3://, gs://). A file is compared with the sum in ADDRESS.sha256, if there is one."""
    mirror: str | None = None
    """Address (s3://, gs://) below which checkpoints and the log are kept as well, so that a trial goes on on another
    machine where there is no shared folder, and the sweep after its head was lost (`--resume ADDRESS`); each sweep has
    a folder of its own there, NAME and a random mark."""
    stores: StoresConfig = StoresConfig()
    """What the trials of a machine share on its disk."""
    step_timeout_s: float = Field(default=3600, gt=0)
    """Longest wait for one epoch, including start-up, before a slot is taken for broken."""
    max_failures: int = Field(default=2, ge=0)
    """How often a trial is started again after its process died; a trial that raises is not repeated. Nodes that are
    lost do not count, nor slots that cannot start, except where this is 0."""

    @field_validator("slots")
    @classmethod
    def _positive(cls, slots: int | str) -> int | str:
        if isinstance(slots, int) and slots < 1:
            raise ValueError(f"must be >= 1 or auto, got {slots}")
        return slots

    @field_validator("gpus_per_worker")
    @classmethod
    def _as_ray_divides_them(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"must be a fraction of one GPU or a whole number of them, got {gpus}")
        return gpus

    @field_validator("fetch")
    @classmethod
    def _addressed(cls, fetch: dict[str, str]) -> dict[str, str]:
        wrong = [uri for uri in fetch.values() if "://" not in uri]
        if wrong:
            raise ValueError(f"{wrong[0]} is no address; write PATH: s3://BUCKET/NAME")
        for uri in fetch.values():
            _refuse_password(uri)
        return fetch

    @field_validator("mirror")
    @classmethod
    def _is_address(cls, mirror: str | None) -> str | None:
        if mirror is not None and "://" not in mirror:
            raise ValueError(f"must be an address such as s3://BUCKET/FOLDER, got {mirror}")
        _refuse_password(mirror or "")
        return None if mirror is None else mirror.rstrip("/")

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one worker by their Ray names."""
        wanted = {
            "CPU": self.cpus_per_worker,
            "GPU": self.gpus_per_worker,
            "memory": float(int(self.memory_gib_per_worker * 2**30)),
        }
        return {name: amount for name, amount in wanted.items() if amount > 0}


def _refuse_password(address: str) -> None:
    if urlsplit(address).password:
        raise ValueError("must not hold a key, because sweep files are kept and shown; put it into the environment")
