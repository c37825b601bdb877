"""Which MLflow stores a sweep may be recorded in; docs/tracking.md says how to have a better one."""

from __future__ import annotations

from urllib.parse import urlsplit

from infosam.errors import UserError

SERVER_ADVICE = (
    "start a server over PostgreSQL (docs/tracking.md has the commands), then set MLFLOW_TRACKING_URI or tracking.uri "
    "to its address, such as http://HOST:5000"
)


class UnfitStore(UserError):
    """A place that would lose or slow down records."""


def check_store(uri: str, *, nodes: int = 1) -> None:
    """Refuses what cannot hold a sweep. Raises UnfitStore.

    Args:
        uri: tracking server or database, as MLflow takes it.
        nodes: live machines of the Ray cluster."""
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        raise UnfitStore(
            f"{uri!r} (MLFLOW_TRACKING_URI or tracking.uri) is a folder: MLflow searches it file by file, and two "
            "sweeps at once can damage it. On one machine leave the setting out, for the embedded database "
            f"of the results folder; for several, {SERVER_ADVICE}"
        )
    if scheme.partition("+")[0] == "sqlite" and nodes > 1:
        raise UnfitStore(
            f"{uri!r} is a database file on one machine, the Ray cluster has {nodes} nodes: the others cannot "
            f"reach it, and over a network file system its locks fail; {SERVER_ADVICE}"
        )
