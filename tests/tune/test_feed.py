"""The protocol between slot and worker, without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tune.feed import Feed
from tune.worker import Failure, Job, Message, Report

T = TypeVar("T")
PATIENCE_S = 10.0


def job(name: str) -> Job:
    return Job(trial_id=name, config={}, checkpoint_dir="")


def report(epoch: int) -> Report:
    return Report(epoch=epoch, values={}, checkpoint=None, is_best=False, completed=False)


def play(scene: Callable[[Feed], Awaitable[None]], max_starts: int = 2) -> None:
    async def run() -> None:
        await asyncio.wait_for(scene(Feed(max_starts)), PATIENCE_S)

    asyncio.run(run())


async def settled(task: asyncio.Task[T]) -> bool:
    """Whether a task is done after everything that can happen has happened."""
    for _ in range(20):
        await asyncio.sleep(0)
    return task.done()


def test_the_worker_goes_on_only_when_the_slot_asks_again() -> None:
    async def scene(feed: Feed) -> None:
        version = await feed.assign(job("a"))
        assert await feed.next_job(0) == (version, job("a"))
        offer = asyncio.create_task(feed.offer(version, report(1)))
        assert await feed.take(version, 5) == report(1)
        assert not await settled(offer)
        take = asyncio.create_task(feed.take(version, 5))
        assert await offer is True
        assert not await settled(take)
        asyncio.create_task(feed.offer(version, report(2)))  # noqa: RUF006 - ends with the loop
        assert await take == report(2)

    play(scene)


def test_another_trial_drops_the_old_one() -> None:
    async def scene(feed: Feed) -> None:
        old = await feed.assign(job("a"))
        offer = asyncio.create_task(feed.offer(old, report(1)))
        assert await feed.take(old, 5) == report(1)
        new = await feed.assign(job("b"))
        assert await offer is False
        assert await feed.offer(old, report(2)) is False
        assert await feed.take(old, 5) is None
        assert await feed.next_job(old) == (new, job("b"))

    play(scene)


def test_an_unread_report_is_not_overwritten_by_a_restarted_worker() -> None:
    async def scene(feed: Feed) -> None:
        version = await feed.assign(job("a"))
        first = asyncio.create_task(feed.offer(version, report(1)))
        await settled(first)
        second = asyncio.create_task(feed.offer(version, report(2)))
        await settled(second)
        assert [await feed.take(version, 5), await feed.take(version, 5)] == [report(1), report(2)]

    play(scene)


def test_a_restarted_worker_gets_the_same_trial_until_it_has_died_too_often() -> None:
    async def scene(feed: Feed) -> None:
        version = await feed.assign(job("a"))
        assert await feed.next_job(0) == (version, job("a"))
        assert await feed.next_job(0) == (version, job("a"))
        third = asyncio.create_task(feed.next_job(0))
        message: Message | None = await feed.take(version, 5)
        assert isinstance(message, Failure)
        assert "died 2 times" in message.error
        assert not await settled(third)
        new = await feed.assign(job("b"))
        assert await third == (new, job("b"))

    play(scene)


def test_a_slot_that_waits_in_vain_is_told_so() -> None:
    async def scene(feed: Feed) -> None:
        version = await feed.assign(job("a"))
        assert await feed.take(version, 0.01) is None

    play(scene)


@pytest.mark.parametrize("before", ["waiting for a trial", "waiting for a decision"])
def test_closing_lets_the_worker_end(before: str) -> None:
    async def scene(feed: Feed) -> None:
        if before == "waiting for a trial":
            waiting = asyncio.create_task(feed.next_job(0))
            await settled(waiting)
            await feed.close()
            assert await waiting is None
        else:
            version = await feed.assign(job("a"))
            offer = asyncio.create_task(feed.offer(version, report(1)))
            await settled(offer)
            await feed.close()
            assert await offer is False

    play(scene)
