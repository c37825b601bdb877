"""Sweeps as jobs of a cluster: `infosam cluster submit | logs | stop`, over the dashboard's port."""

from __future__ import annotations

import os
import shlex
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.access import with_token
from cluster.upload import collect, copy_to
from infosam.errors import UserError
from tune.resources import environment

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DASHBOARD = "http://127.0.0.1:8265"
"""Where `ray dashboard CLUSTER.yaml`, `kubectl port-forward` or an ssh tunnel shows a head's dashboard."""
CONFIG_NAME = "sweep.yaml"
CONNECT_TIMEOUT_S = 3.0
TOKEN_ADVICE = (
    "A cluster of `infosam cluster init` takes the token of --cluster NAME, another one RAY_AUTH_MODE=token and its "
    "token in RAY_AUTH_TOKEN; on Kubernetes: kubectl get secret NAME -o jsonpath='{.data.auth_token}' | base64 -d"
)


class NoDashboard(UserError):
    """No dashboard answers, or it knows no such job."""


@contextmanager
def job_client(dashboard: str | None, name: str | None) -> Iterator[JobSubmissionClient]:
    """A connection to the jobs of a cluster, with its token. Raises NoDashboard.

    Args:
        dashboard: http://HOST:PORT; default: RAY_API_SERVER_ADDRESS, else this machine's port 8265.
        name: of the cluster, for its token."""
    address = dashboard or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD
    _refuse_silence(address)
    with environment(with_token(os.environ, address, name=name)):
        # Ray reads RAY_AUTH_MODE when it is imported.
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        try:
            yield JobSubmissionClient(address)
        except (AuthenticationError, ConnectionError) as error:
            raise NoDashboard(f"{address}: {str(error).strip()}\n{TOKEN_ADVICE}") from error
        except RuntimeError as error:  # what Ray raises for every answer but 200
            raise NoDashboard(f"{address}: {str(error).strip().splitlines()[-1]}") from error


def _refuse_silence(address: str) -> None:
    """Raises NoDashboard where nobody listens: clearer, and sooner than Ray."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NoDashboard(f"--dashboard {address}: must be http://HOST:PORT")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise NoDashboard(
            f"no dashboard at {address}: {error}. Open a tunnel first: `ray dashboard CLUSTER.yaml`, "
            "`kubectl port-forward service/infosam-head-svc 8265`, or `ssh -L 8265:127.0.0.1:8265 HEAD`; the "
            "cluster needs `ray[default]` (infosam[cluster])"
        ) from error


def submit(
    client: JobSubmissionClient, config: str, *, name: str, settings: Sequence[str], folder: Path | None
) -> tuple[str, int]:
    """Starts a sweep as a job that outlives this program; returns the job's id and the bytes sent along.

    Args:
        config: a file here, `default`, or a path or URI that begins with a scheme or / and is read on the head.
        name: of the sweep; given twice, the second job goes on with it.
        folder: sent along as the job's current folder.

    Raises UserError for files that cannot be read or are too large, and for a folder with another file of the name that
    the sweep's file gets; nothing is started then."""
    with tempfile.TemporaryDirectory(prefix="infosam-submit-") as scratch:
        sent, size = Path(scratch), 0
        if folder is not None:
            upload = collect(folder)
            copy_to(upload, sent)
            size = upload.size
        there = config
        if not _is_on_the_head(config):
            there = CONFIG_NAME
            _refuse_another_config(Path(config), folder)
            size += _copy_config(Path(config), sent / CONFIG_NAME)
        job_id = client.submit_job(
            entrypoint=entrypoint(there, name=name, settings=settings),
            submission_id=None,
            runtime_env={"working_dir": str(sent)} if size else None,
            metadata={"sweep": name},
        )
    return job_id, size


def entrypoint(config: str, *, name: str, settings: Sequence[str]) -> str:
    """The command line of the job; a shell on the head reads it."""
    return shlex.join(["python", "-m", "tune.sweep", "--config", config, "--once", name, *settings])


def _is_on_the_head(config: str) -> bool:
    return config == "default" or "://" in config or (config.startswith("/") and not Path(config).is_file())


def _refuse_another_config(source: Path, folder: Path | None) -> None:
    taken = folder / CONFIG_NAME if folder is not None else None
    if taken is not None and taken.exists() and source.exists() and not taken.samefile(source):
        raise UserError(
            f"--with {folder}: {CONFIG_NAME} there is another file than {source}, which is sent under this name; "
            f"rename the one in the folder, or submit it: infosam cluster submit {taken} NAME --with {folder}"
        )


def _copy_config(source: Path, target: Path) -> int:
    try:
        return target.write_bytes(source.read_bytes())
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error}") from error
