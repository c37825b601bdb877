"""What Ray Serve's proxy lets in: whole requests, few at a time, of bounded size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from cluster.serve.front import SMALL_BYTES, VARIABLE, Front, FrontSettings, middlewares
from cluster.serve.settings import ServeSettings

MIB = 1 << 20
SMALL = FrontSettings(
    body_bytes=4 * MIB, held_bytes=6 * MIB, at_once=1, waiting=2, receive_s=60.0, answer_s=60.0, token_sha256=None
)


class Client:
    """One request: `parts` are sent as they are asked for, then nothing until `go_on`, then the client hangs up."""

    def __init__(self, parts: Iterable[bytes], *, method: str = "POST", ends: bool = True, **headers: str) -> None:
        named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        self.scope = {"type": "http", "method": method, "path": "/v1/mask", "headers": named}
        self._parts, self._ends = list(parts), ends
        self.go_on = asyncio.Event()
        self.asked = 0
        self.status: int | None = None
        self.detail = ""

    async def receive(self) -> Any:
        self.asked += 1
        if not self._parts:
            await self.go_on.wait()
            return {"type": "http.disconnect"}
        part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts) or not self._ends}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("body"):
            self.detail += json.loads(message["body"])["detail"]


class Behind:
    """What the front hands on; answers when it is told to."""

    def __init__(self, *, free: bool = True) -> None:
        self.bodies: list[int] = []
        self.headers: list[list[bytes]] = []
        self.at_once = self.most = 0
        self.free = asyncio.Event()
        if free:
            self.free.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message["body"])
            more = message["more_body"]
        self.bodies.append(size)
        self.headers.append([name for name, _ in scope["headers"]])
        await self.free.wait()
        self.at_once -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def sent(front: Front, *clients: Client) -> None:
    await asyncio.gather(*(front(client.scope, client.receive, client.send) for client in clients))


def test_a_request_goes_on_as_it_came() -> None:
    async def work() -> None:
        behind = Behind()
        client = Client([b"a" * MIB, b"", b"b" * MIB], x_request_timeout_seconds="-1", accept="image/png")
        await sent(Front(behind, SMALL), client)
        assert (client.status, behind.bodies) == (200, [2 * MIB])
        assert behind.headers == [[b"accept"]]  # and not the one that would lift a limit

    asyncio.run(work())


@pytest.mark.parametrize(
    ("client", "read"),
    [
        (lambda: Client([b"x"], content_length=str(5 * MIB)), 0),
        (lambda: Client([b"x"], content_length="-5"), 0),
        (lambda: Client([bytes(MIB)] * 100), 5),
        (lambda: Client([b""], method="GET", content_length=str(SMALL_BYTES + 1)), 0),
        (lambda: Client([bytes(SMALL_BYTES)] * 100, method="GET"), 2),
    ],
    ids=["announced", "nonsense", "in parts", "on a page", "on a page, in parts"],
)
def test_too_much_is_read_no_further_than_the_limit(client: Any, read: int) -> None:
    async def work() -> None:
        behind, one = Behind(), client()
        await sent(Front(behind, SMALL), one)
        assert (one.status, one.asked, behind.bodies) == (413, read, [])

    asyncio.run(work())


def test_bodies_that_come_at_a_time_share_what_may_be_held() -> None:
    async def work() -> None:
        behind = Behind()
        front = Front(behind, SMALL)
        slow = [Client([bytes(3 * MIB)], ends=False) for _ in range(3)]
        tasks = [asyncio.create_task(front(one.scope, one.receive, one.send)) for one in slow]
        await tasks[2]
        assert (slow[2].status, [one.status for one in slow[:2]]) == (503, [None, None])
        assert "too many pictures" in slow[2].detail
        for one in slow[:2]:
            one.go_on.set()  # the client goes away: nobody is answered, and its bytes are let go
        await asyncio.gather(*tasks)
        whole = Client([bytes(4 * MIB)])
        await sent(front, whole)
        assert (whole.status, behind.bodies) == (200, [4 * MIB])

    asyncio.run(work())


def test_few_are_handed_on_at_a_time_and_few_may_wait() -> None:
    async def work() -> None:
        behind = Behind(free=False)
        front = Front(behind, SMALL)
        clients = [Client([b"x"]) for _ in range(5)]
        tasks = [asyncio.create_task(front(one.scope, one.receive, one.send)) for one in clients]
        await asyncio.gather(*tasks[3:])
        assert [one.status for one in clients] == [None, None, None, 503, 503]
        page = Client([b""], method="GET")
        other = asyncio.create_task(front(page.scope, page.receive, page.send))
        while len(behind.bodies) < 2:  # /healthz does not wait for pictures
            await asyncio.sleep(0)
        behind.free.set()
        await asyncio.gather(*tasks, other)
        assert [one.status for one in clients[:3]] == [200, 200, 200]
        assert (page.status, behind.most) == (200, 2)

    asyncio.run(work())


def test_who_sends_too_slowly_is_told_and_takes_no_place() -> None:
    async def work() -> None:
        behind = Behind()
        front = Front(behind, FrontSettings(**{**vars(SMALL), "receive_s": 0.01}))
        slow = Client([b"x"], ends=False)
        await sent(front, slow)
        assert (slow.status, behind.bodies) == (408, [])
        quick = Client([b"x"])
        await sent(front, quick)
        assert quick.status == 200

    asyncio.run(work())


def test_who_does_not_read_the_answer_takes_no_place_for_ever() -> None:
    async def work() -> None:
        behind = Behind(free=False)
        front = Front(behind, FrontSettings(**{**vars(SMALL), "answer_s": 0.01}))
        stuck = Client([b"x"])
        await sent(front, stuck)
        assert stuck.status is None
        behind.free.set()
        next_one = Client([b"x"])
        await sent(front, next_one)
        assert next_one.status == 200

    asyncio.run(work())


def test_the_proxy_makes_it_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    token = "a-token-nobody-would-guess"
    settings = FrontSettings.of(ServeSettings(token=token, replicas=2))
    assert (settings.at_once, settings.held_bytes) == (16, 16 * 32 * MIB)
    environment = settings.environment()
    assert token not in str(environment)
    monkeypatch.setenv(VARIABLE, environment[VARIABLE])

    async def work() -> None:
        app: Any = Behind()
        for one in middlewares():
            app = one.cls(app, *one.args, **one.kwargs)
        stranger, friend = Client([bytes(MIB)]), Client([b"x"], authorization=f"Bearer {token}")
        await sent(app, stranger, friend)
        assert (stranger.status, stranger.asked) == (401, 0)
        assert friend.status == 200

    asyncio.run(work())
