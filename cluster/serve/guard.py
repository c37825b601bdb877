"""What stands before the application: who may ask, and how much they may send. Plain ASGI.

`cluster.serve.front` asks the same before Ray Serve has taken the body in; here it holds whatever stands in front."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Collection

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.serve.figures import Figures

OPEN_PATHS = ("/", "/try.js", "/try.css", "/healthz", "/openapi.json")
"""What a browser or a load balancer fetches before anybody has shown a token; nothing of it tells of pictures."""


def token_digest(token: str) -> str:
    """What is compared instead of a token."""
    return hashlib.sha256(f"Bearer {token}".encode()).hexdigest()


class TokenGuard:
    """Answers 401 unless a request carries the token of this digest; lets all pass where there is none."""

    def __init__(self, app: ASGIApp, digest: str | None) -> None:
        self._app = app
        self._expected = digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and self._expected is not None and scope["path"] not in OPEN_PATHS:
            given = Headers(scope=scope).get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(hashlib.sha256(given).hexdigest(), self._expected):
                refusal = JSONResponse(
                    {"detail": "this server wants a token: send the header Authorization: Bearer TOKEN"},
                    status_code=401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


class SizeGuard:
    """Answers 413 to a body of more than `limit` bytes, by its announced length or as soon as that much has come."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._refusal = f"the request is larger than {limit >> 20} MiB; send a smaller picture"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._limit:
            await JSONResponse({"detail": self._refusal}, status_code=413)(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._limit:
                raise HTTPException(413, self._refusal)
            return message

        await self._app(scope, counted, send)


class Counted:
    """Tells `figures` of every answer; paths that are none of `paths` count as one, or strangers could make many."""

    def __init__(self, app: ASGIApp, figures: Figures, paths: Collection[str]) -> None:
        self._app = app
        self._figures = figures
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"] if scope["path"] in self._paths else "(other)"

        async def noticed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._figures.answered(path, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, noticed)
