"""What stands in Ray Serve's proxy, before a request goes to a replica.

The proxy reads a body as fast as it comes and keeps all of it, whoever sent it, until a replica has asked for it. So
the limits have to hold here: who may ask, how much, how slowly, and how many at a time. Only whole requests go on, and
no slow sender takes a replica's place. Ray Serve asks for this through `CALLBACK`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import TypeAdapter
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.serve.guard import TokenGuard, token_digest

if TYPE_CHECKING:
    from cluster.serve.settings import ServeSettings

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
VARIABLE = "INFOSAM_SERVE_FRONT"
SMALL_BYTES = 64 << 10
"""Of a request that brings no picture."""
CLIENTS_MAY_NOT = ("x-request-timeout-seconds", "x-request-disconnect-disabled")
"""Headers by which Ray Serve lets a client lift its limits."""


@dataclass(frozen=True, kw_only=True)
class FrontSettings:
    """Limits of one proxy."""

    body_bytes: int  # of one request
    held_bytes: int  # of all bodies that came and are not answered
    at_once: int  # requests with a picture that replicas work on
    waiting: int  # those that come in or wait meanwhile
    receive_s: float  # that a body may take to come
    answer_s: float  # that an answer may take to be made and to be read by the client
    token_sha256: str | None

    @classmethod
    def of(cls, settings: ServeSettings) -> FrontSettings:
        """For a server with these settings."""
        at_once = settings.at_once * settings.replicas
        return cls(
            body_bytes=settings.max_upload_bytes,
            held_bytes=settings.max_upload_bytes * at_once,
            at_once=at_once,
            waiting=settings.waiting,
            receive_s=settings.receive_s,
            answer_s=settings.answer_s + settings.receive_s,
            token_sha256=None if settings.token is None else token_digest(settings.token),
        )

    def environment(self) -> dict[str, str]:
        """What the proxy's process must have in its environment. The token itself is not in it."""
        return {CALLBACK: f"{__name__}.middlewares", VARIABLE: TypeAdapter(FrontSettings).dump_json(self).decode()}


def middlewares() -> list[Middleware]:
    """Asked for by Ray Serve's proxy; the last one is the first that a request meets."""
    settings = TypeAdapter(FrontSettings).validate_json(os.environ[VARIABLE])
    return [Middleware(Front, settings=settings), Middleware(TokenGuard, digest=settings.token_sha256)]


class Refused(Exception):
    """The answer to a request that does not go on."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Front:
    """Takes requests in whole and hands them on, a few at a time; what it refuses is read no further."""

    def __init__(self, app: ASGIApp, settings: FrontSettings) -> None:
        self._app = app
        self._settings = settings
        self._turns = asyncio.Semaphore(settings.at_once)
        self._inside = 0
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        if scope["type"] != "http":
            return
        scope["headers"] = [(name, text) for name, text in scope["headers"] if name.decode() not in CLIENTS_MAY_NOT]
        body = Body(self, self._settings.body_bytes if scope["method"] == "POST" else SMALL_BYTES)
        try:
            if scope["method"] == "POST":
                await self._in_turn(body, scope, receive, send)
            elif await self._taken(body, scope, receive):
                await self._app(scope, body.replayed(receive), send)
        except Refused as refusal:
            # Otherwise the connection stays: the web server throws away what still comes, so that the client sees this.
            headers = {"Connection": "close"} if refusal.status == 408 else {}
            answer = JSONResponse({"detail": refusal.detail}, status_code=refusal.status, headers=headers)
            await answer(scope, receive, send)
        finally:
            body.drop()

    async def _in_turn(self, body: Body, scope: Scope, receive: Receive, send: Send) -> None:
        if self._inside >= self._settings.at_once + self._settings.waiting:
            raise Refused(503, "too much to do; try again later")
        self._inside += 1
        try:
            if await self._taken(body, scope, receive):
                # Who does not read the answer loses the connection, and not the others their turn.
                async with self._turns:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._settings.answer_s):
                            await self._app(scope, body.replayed(receive), send)
        finally:
            self._inside -= 1

    async def _taken(self, body: Body, scope: Scope, receive: Receive) -> bool:
        """Whether all of the body came; False for a client that went away. Raises Refused."""
        body.announce(Headers(scope=scope).get("content-length", "0"))
        try:
            async with asyncio.timeout(self._settings.receive_s):
                return await body.take(receive)
        except TimeoutError:
            raise Refused(408, f"the request took more than {self._settings.receive_s:g} s to come") from None

    def hold(self, count: int) -> None:
        """Counts bytes of bodies; negative ones are let go. Raises Refused for more than may be held."""
        if count > 0 and self._held_bytes + count > self._settings.held_bytes:
            raise Refused(503, "too many pictures are coming in at a time; try again later")
        self._held_bytes += count


class Body:
    """The body of one request, taken in by parts that `front` counts."""

    def __init__(self, front: Front, limit: int) -> None:
        self._front = front
        self._limit = limit
        self._parts: deque[bytes] = deque()
        self._count = 0

    def announce(self, length: str) -> None:
        """Raises Refused for a length that is too large, or none."""
        if not length.isdecimal() or int(length) > self._limit:
            raise self._too_large()

    async def take(self, receive: Receive) -> bool:
        """See `Front._taken`."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            if self._count + len(part) > self._limit:
                raise self._too_large()
            self._front.hold(len(part))
            self._count += len(part)
            self._parts.append(part)
            if not message.get("more_body", False):
                return True

    def replayed(self, receive: Receive) -> Receive:
        """Gives the parts again, then what comes after them: that the client went away."""

        async def next_message() -> Message:
            if not self._parts:
                return await receive()
            part = self._parts.popleft()
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}

        return next_message

    def drop(self) -> None:
        """The request is over."""
        self._parts.clear()
        self._front.hold(-self._count)
        self._count = 0

    def _too_large(self) -> Refused:
        size = f"{self._limit >> 20} MiB" if self._limit >= 1 << 20 else f"{self._limit >> 10} KiB"
        return Refused(413, f"the request is larger than {size}; send a smaller picture")
