"""What a user holds of a cluster that `infosam cluster init` described: token and key, outside any repository."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from infosam.errors import UserError

CLUSTERS = Path("~/.infosam/clusters")
"""A folder for each cluster: `key`, `key.pub`, and `secrets/`, which goes to the nodes."""
TOKEN_BYTES = 32
TOKEN_FILE = Path("~/.ray/auth_token")
"""Where Ray keeps the token it made for this user's clusters."""


def folder_of(name: str) -> Path:
    """Where the key and the secrets of a cluster lie."""
    return CLUSTERS.expanduser() / name


def token_file(name: str) -> Path:
    """The token of a cluster, which the launcher copies to its nodes."""
    return folder_of(name) / "secrets" / "auth_token"


def make_token(name: str) -> Path:
    """A token for a cluster, unless it has one; only this user can read it."""
    path = token_file(name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(TOKEN_BYTES))
    return path


def make_key(name: str) -> Path:
    """An ssh key for a cluster, unless it has one. `ray up` copies the private half to the head, so it must open
    nothing else. Raises UserError without ssh-keygen."""
    path = folder_of(name) / "key"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"infosam-{name}", "-f", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError("ssh-keygen is not installed; on Debian or Ubuntu: apt-get install openssh-client") from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"{path}: ssh-keygen could not make a key: {error.stderr.strip()}") from error
    return path


def with_token(environment: Mapping[str, str], address: str, *, name: str | None = None) -> dict[str, str]:
    """`environment` with token authentication switched on where there is a token for the cluster at `address`.

    Ray protects local clusters by a token unless told otherwise, but only sends it to an explicit address when
    RAY_AUTH_MODE=token says so. That caution is right for other machines, which the token would be given away to: they
    get the one made for them or none.

    Args:
        address: HOST:PORT, ray://HOST:PORT or http://HOST:PORT.
        name: of a cluster that `infosam cluster init` described.

    Raises UserError for a name that has no token here."""
    if "RAY_AUTH_MODE" in environment:
        return dict(environment)
    named = any(environment.get(variable) for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if name is not None and not named:
        path = token_file(name)
        if not path.is_file():
            raise UserError(
                f"{path}: no token for cluster {name!r}; `infosam cluster init` makes one, or set RAY_AUTH_TOKEN_PATH"
            )
        return {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    available = named or TOKEN_FILE.expanduser().is_file()
    if name is not None or (available and is_here(address)):
        return {**environment, "RAY_AUTH_MODE": "token"}
    return dict(environment)


def is_here(address: str) -> bool:
    """Whether the host of HOST:PORT or http://HOST:PORT is this machine: only own addresses can be bound to."""
    host = address.removeprefix("http://").rstrip("/").rpartition(":")[0].strip("[]")
    if not host or address.startswith("ray://"):
        return False
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False
