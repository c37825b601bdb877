"""What `infosam serve` was asked for."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from cluster.adapters import Adapters
from infosam.errors import UserError

TOKEN_VARIABLE = "INFOSAM_SERVE_TOKEN"
MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where the server listens, what it holds and how much it takes.

    `token` is what clients send as `Authorization: Bearer TOKEN`; it is left out of every text made of this."""

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    cpus_per_replica: float = 1.0
    gpus_per_replica: float = 0.0
    adapters: Adapters = field(default_factory=Adapters)
    follow_s: float = 10.0
    max_upload_mib: int = 32
    max_megapixels: float = 25.0
    at_once: int = 8  # requests with a picture that a replica works on; each may hold a decoded one
    waiting: int = 64  # such requests that may come in or wait meanwhile, before others are turned away
    receive_s: float = 60.0  # that a request may take to come
    answer_s: float = 300.0  # that a replica may take for an answer
    token: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """For people and browsers on this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def max_upload_bytes(self) -> int:
        """Of a whole request."""
        return self.max_upload_mib << 20

    @property
    def max_pixels(self) -> int:
        """Of a picture."""
        return int(self.max_megapixels * 1e6)


def read_token() -> str | None:
    """The token of the environment, if there is one. Raises UserError for one that is easily guessed."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return None
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"{TOKEN_VARIABLE}: a token is {MIN_TOKEN_LENGTH} or more printable ASCII characters without spaces; "
            "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


def check_exposure(host: str, token: str | None) -> None:
    """Raises UserError for a server that others could reach and anybody could use."""
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: put a token into {TOKEN_VARIABLE} first, such as from "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
