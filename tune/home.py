"""Where sweeps and their records live on this machine."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Home:
    """The results folder: `INFOSAM_HOME`, or `infosam-runs` in the current folder."""

    folder: Path

    @property
    def sweeps(self) -> Path:
        """One folder per sweep."""
        return self.folder / "sweeps"

    @property
    def artifacts(self) -> Path:
        """Files MLflow keeps for its runs."""
        return self.folder / "artifacts"

    @property
    def database(self) -> Path:
        """The embedded MLflow store."""
        return self.folder / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        """`MLFLOW_TRACKING_URI`, or the embedded store."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.database}"

    @property
    def encodings(self) -> Path:
        """What the trials of a machine share; the folder of each machine lies below."""
        return self.folder / "encodings"

    @property
    def checks(self) -> Path:
        """What was found in data sets, one file for each content."""
        return self.folder / "checks"

    @property
    def remote(self) -> Path:
        """Copies of data sets from buckets, each named after its content."""
        return self.folder / "remote"

    @property
    def demo(self) -> Path:
        """The demonstration's images and dataset."""
        return self.folder / "demo"


def of_this_machine(folder: Path) -> Path:
    """The part of a folder that this machine has for itself, also where several of them see the same disk."""
    return folder / socket.gethostname()


def find_home() -> Home:
    """The home the environment names; the folder need not exist."""
    return Home(folder=Path(os.environ.get("INFOSAM_HOME") or "infosam-runs").expanduser().absolute())
