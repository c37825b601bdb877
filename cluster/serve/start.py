"""From `infosam serve` to a running server, and its end."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

from cluster.serve.settings import ServeSettings
from infosam.errors import UserError

EXTRA = "infosam serve needs packages that are not installed: pip install 'infosam[serve]'"
NAME = "infosam"
SMALL_AT_ONCE = 8
"""Requests without a picture that a replica answers beside those with one."""
PATIENCE = {
    # Ray Serve gives its proxy five seconds to start and ten to answer, which slow cores under load do not keep.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}


class ServerFailed(RuntimeError):
    """Ray Serve could not bring up the replicas."""


@contextlib.contextmanager
def serving(settings: ServeSettings, *, address: str | None = None, verbose: bool = False) -> Iterator[None]:
    """The server is up inside, and gone after. Raises UserError for a port that is taken or a missing extra,
    ServerFailed if no replica comes up."""
    if address is None:
        check_port(settings.host, settings.port)
    from tune.ray_private import hide_node_messages
    from tune.resources import SETTINGS, environment, ray_session

    with environment({**SETTINGS, **PATIENCE}):
        try:
            from ray import serve

            from cluster.serve.front import FrontSettings
            from cluster.serve.replica import Replica
        except ImportError as error:
            raise UserError(f"{EXTRA} ({error})") from error
        if not verbose:
            hide_node_messages()
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
        with ray_session(address, verbose=verbose):
            if serve.status().proxies:
                raise UserError(
                    "Ray Serve runs on this cluster already, with other limits; end it first: serve shutdown"
                )
            serve.start(
                http_options={"host": settings.host, "port": settings.port, "request_timeout_s": settings.answer_s},
                # The proxy is a child of the controller and inherits this.
                controller_options={"runtime_env": {"env_vars": FrontSettings.of(settings).environment()}},
            )
            deployed: Any = serve.deployment(
                num_replicas=settings.replicas,
                # The front hands on few requests with a picture; the rest of the places is for /healthz and its like.
                max_ongoing_requests=settings.at_once + SMALL_AT_ONCE,
                max_queued_requests=settings.waiting,
                ray_actor_options={"num_cpus": settings.cpus_per_replica, "num_gpus": settings.gpus_per_replica},
            )(Replica)
            try:
                serve.run(deployed.bind(settings), name=NAME, route_prefix="/")
            except RuntimeError as error:
                raise ServerFailed(f"no replica came up: {error}") from error
            try:
                yield
            finally:
                serve.shutdown()


def check_port(host: str, port: int) -> None:
    """Raises UserError for an address that nobody can listen at."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror or error}; choose another port") from error


def wait() -> None:
    """Until Ctrl-C or SIGTERM, which raise KeyboardInterrupt."""
    while True:
        time.sleep(3600)
