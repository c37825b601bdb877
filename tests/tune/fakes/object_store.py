"""A real S3 server on loopback (moto), which can be told to be slow and to fail."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Trouble:
    """A web application in front of another.

    Attributes:
        delay_s: before each answer.
        failures: requests to answer with an internal error before the next is let through.
        counts: requests that were let through, by method.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self.delay_s, self.failures = 0.0, 0
        self.counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, environment: Mapping[str, Any], start_response: Any) -> Iterable[bytes]:
        time.sleep(self.delay_s)
        method = environment["REQUEST_METHOD"]
        with self._lock:
            fails = self.failures > 0
            self.failures -= fails
            self.counts[method] = self.counts.get(method, 0) + (not fails)
        if fails:
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
            return [b"<Error><Code>InternalError</Code><Message>planted</Message></Error>"]
        answer: Iterable[bytes] = self._application(environment, start_response)
        return answer


class ObjectStore:
    """A running server; `trouble` is what it does to its callers."""

    def __init__(self, host: str, port: int, trouble: Trouble) -> None:
        self.trouble = trouble
        self._address = f"{host}:{port}"

    def uri(self, path: str) -> str:
        """Address of a bucket or what is in it."""
        return f"s3://{path}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to reach it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{self._address}"}


@contextlib.contextmanager
def object_store(*buckets: str, host: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """A server with empty buckets, in the network that this thread is in."""
    from moto.backends import get_backend
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Says nothing."""

    trouble = Trouble(DomainDispatcherApplication(create_backend_app))
    backend = get_backend("s3")["123456789012"]["aws"]
    for bucket in buckets:
        backend.create_bucket(bucket, "us-east-1")
    server = make_server(host, 0, trouble, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield ObjectStore(host, server.server_port, trouble)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        backend.reset()
