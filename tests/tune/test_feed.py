"""The protocol between slot and training processes, without processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from tune import feed as feed_module
from tune.feed import Answer, Feed
from tune.worker import Assignment, Failure, Job, Message, Report

T = TypeVar("T")
PATIENCE_S = 10.0
TEAM = "first"


def job(name: str) -> Job:
    return Job(trial_id=name, config={}, checkpoint_dir="", data="")


def report(epoch: int, completed: bool = False, starts: int = 1) -> Report:
    return Report(epoch=epoch, values={}, checkpoint=None, is_best=False, completed=completed, starts=starts)


def failure(error: str) -> Failure:
    return Failure(error=error, trace=f"trace of {error}")


class Process:
    """One training process as its `Team` behaves, but for waiting."""

    def __init__(self, feed: Feed, rank: int = 0, team: str = TEAM) -> None:
        self.feed, self.rank, self.team, self.turn, self.round = feed, rank, team, 0, 0

    async def next_job(self) -> Job | None:
        assignment = await self.feed.next_job(self.team, self.rank, self.turn, PATIENCE_S)
        assert assignment is not None
        self.turn, self.round = assignment.turn, 0
        return assignment.job

    async def offer(self, message: Message) -> Answer | None:
        self.round += 1
        return await self.feed.offer(self.team, self.rank, self.turn, self.round, message, PATIENCE_S)


def play(scene: Callable[[Feed], Awaitable[None]], **settings: int) -> None:
    async def run() -> None:
        feed = Feed(**{"max_starts": 2, **settings})
        await feed.enter(TEAM)
        await asyncio.wait_for(scene(feed), PATIENCE_S)

    asyncio.run(run())


async def settled(task: asyncio.Task[T]) -> bool:
    """Whether a task is done after everything that can happen has happened."""
    for _ in range(20):
        await asyncio.sleep(0)
    return task.done()


def begin(what: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(what)


def test_the_process_goes_on_only_when_the_slot_asks_again() -> None:
    async def scene(feed: Feed) -> None:
        process, version = Process(feed), await feed.assign(job("a"))
        assert await process.next_job() == job("a")
        offer = begin(process.offer(report(1)))
        assert await feed.take(version, 5) == report(1)
        assert not await settled(offer)
        take = begin(feed.take(version, 5))
        assert await offer == "go"
        assert not await settled(take)
        offer = begin(process.offer(report(2)))
        assert await take == report(2)
        assert not await settled(offer)
        await feed.close()
        assert await offer == "drop"

    play(scene)


def test_another_trial_drops_the_old_one() -> None:
    async def scene(feed: Feed) -> None:
        process, old = Process(feed), await feed.assign(job("a"))
        await process.next_job()
        offer = begin(process.offer(report(1)))
        assert await feed.take(old, 5) == report(1)
        new = await feed.assign(job("b"))
        assert await offer == "drop"
        assert await process.offer(report(2)) == "drop"
        assert await feed.take(old, 5) is None
        assert await process.next_job() == job("b")
        begun = begin(process.offer(report(1)))
        assert await feed.take(new, 5) == report(1)
        await feed.close()
        await begun

    play(scene)


def test_what_was_told_before_a_restart_is_not_told_twice() -> None:
    async def scene(feed: Feed) -> None:
        process, version = Process(feed), await feed.assign(job("a"))
        await process.next_job()
        lost = begin(process.offer(report(1)))
        await settled(lost)
        await feed.enter("second")
        assert await lost == "drop"
        process = Process(feed, team="second")
        assert await process.next_job() == job("a")
        again = begin(process.offer(report(1)))  # as training tells it, whose listener may have died
        assert not await settled(again)
        assert await feed.take(version, 5) == report(1)
        take = begin(feed.take(version, 5))
        assert await again == "go"
        second = begin(process.offer(report(2)))
        assert await take == report(2, starts=2)
        await feed.close()
        await second

    play(scene)


def test_a_report_that_was_lost_with_its_process_is_told_by_the_next() -> None:
    async def scene(feed: Feed) -> None:
        process, version = Process(feed), await feed.assign(job("a"))
        await process.next_job()
        first = begin(process.offer(report(1)))
        assert await feed.take(version, 5) == report(1)
        take = begin(feed.take(version, 5))
        assert await first == "go"
        await feed.enter("second")  # the second epoch was saved, and then the process died
        process = Process(feed, team="second")
        await process.next_job()
        again = begin(process.offer(report(2)))
        assert await take == report(2, starts=2)
        await feed.close()
        await again

    play(scene)


def test_a_restarted_process_gets_the_same_trial_until_it_has_died_too_often() -> None:
    async def scene(feed: Feed) -> None:
        version = await feed.assign(job("a"))
        for name in ("second", "third"):
            await feed.enter(name)
            assert await Process(feed, team=name).next_job() == job("a")
        await feed.enter("fourth")
        process = Process(feed, team="fourth")
        waiting = begin(process.next_job())
        message = await feed.take(version, 5)
        assert isinstance(message, Failure)
        assert "died 2 times" in message.error
        assert not await settled(waiting)
        await feed.assign(job("b"))
        assert await waiting == job("b")

    play(scene)


def test_nodes_that_are_lost_do_not_count_as_deaths_of_a_process() -> None:
    async def scene(feed: Feed) -> None:
        version = await feed.assign(job("a"))
        for number in range(5):
            await feed.forgive(3)
            await feed.enter(f"team {number}")
            assert await Process(feed, team=f"team {number}").next_job() == job("a")
        await feed.enter("last")
        waiting = begin(Process(feed, team="last").next_job())
        message = await feed.take(version, 5)
        assert isinstance(message, Failure)
        assert "died 2 times" in message.error
        waiting.cancel()

    play(scene)


def test_a_trial_that_is_done_is_not_handed_out_again() -> None:
    async def scene(feed: Feed) -> None:
        process, version = Process(feed), await feed.assign(job("a"))
        await process.next_job()
        last = begin(process.offer(report(1, completed=True)))
        assert await feed.take(version, 5) == report(1, completed=True)
        await feed.enter("second")
        assert await last == "drop"
        process = Process(feed, team="second")
        waiting = begin(process.next_job())
        assert not await settled(waiting)
        await feed.assign(job("b"))
        assert await waiting == job("b")

    play(scene)


def test_a_process_of_an_old_group_is_told_to_end() -> None:
    async def scene(feed: Feed) -> None:
        old = Process(feed)
        await feed.assign(job("a"))
        await old.next_job()
        await feed.enter("second")
        assert await old.offer(report(1)) == "drop"
        assert await old.next_job() is None

    play(scene)


def test_calls_that_cannot_be_answered_return_in_time() -> None:
    async def scene(feed: Feed) -> None:
        assert await feed.next_job(TEAM, 0, 0, 0.01) is None
        version = await feed.assign(job("a"))
        assert await feed.next_job(TEAM, 0, 0, 0.01) == Assignment(turn=1, job=job("a"))
        assert await feed.take(version, 0.01) is None
        begun = begin(feed.offer(TEAM, 0, 1, 1, report(1), 5))
        assert await feed.take(version, 5) == report(1)
        assert await feed.offer(TEAM, 0, 1, 1, report(1), 0.01) is None  # asking again tells nothing twice
        assert await feed.take(version, 0.01) is None
        assert await begun == "go"

    play(scene)


@pytest.mark.parametrize("before", ["waiting for a trial", "waiting for a decision"])
def test_closing_lets_the_process_end(before: str) -> None:
    async def scene(feed: Feed) -> None:
        process = Process(feed)
        if before == "waiting for a trial":
            waiting = begin(process.next_job())
            await settled(waiting)
            await feed.close()
            assert await waiting is None
        else:
            await feed.assign(job("a"))
            await process.next_job()
            offer = begin(process.offer(report(1)))
            await settled(offer)
            await feed.close()
            assert await offer == "drop"

    play(scene)


class TestTwoProcesses:
    def test_they_get_the_same_trial_whatever_comes_between(self) -> None:
        async def scene(feed: Feed) -> None:
            first, second = Process(feed, 0), Process(feed, 1)
            await feed.assign(job("a"))
            asked = begin(first.next_job())
            assert not await settled(asked)
            await feed.assign(job("b"))
            assert await second.next_job() == await asked == job("b")

        play(scene, size=2)

    def test_an_epoch_is_told_when_both_are_through(self) -> None:
        async def scene(feed: Feed) -> None:
            first, second = Process(feed, 0), Process(feed, 1)
            version = await feed.assign(job("a"))
            await asyncio.gather(first.next_job(), second.next_job())
            take, one = begin(feed.take(version, 5)), begin(first.offer(report(1)))
            assert not await settled(take)
            other = begin(second.offer(report(1)))
            assert await take == report(1)
            assert not await settled(one)
            assert await feed.take(version, 0.01) is None  # asking for the next epoch is the sign to go on
            assert (await one, await other) == ("go", "go")

        play(scene, size=2)

    def test_both_drop_the_trial_at_the_same_epoch(self) -> None:
        """One hears that it may go on, the trial is replaced, and only then the other asks about that epoch."""

        async def scene(feed: Feed) -> None:
            first, second = Process(feed, 0), Process(feed, 1)
            version = await feed.assign(job("a"))
            await asyncio.gather(first.next_job(), second.next_job())
            one, two = begin(first.offer(report(1))), begin(second.offer(report(1)))
            assert await feed.take(version, 5) == report(1)
            two.cancel()  # its answer is on the way
            take = begin(feed.take(version, 5))
            assert await one == "go"
            take.cancel()
            await feed.assign(job("b"))
            second.round -= 1
            assert await second.offer(report(1)) == "go"
            assert await second.offer(report(2)) == await first.offer(report(2)) == "drop"
            assert await asyncio.gather(second.next_job(), first.next_job()) == [job("b"), job("b")]

        play(scene, size=2)

    @pytest.mark.parametrize("failing", [0, 1])
    def test_the_first_failure_is_the_reason_and_both_stay(self, failing: int) -> None:
        async def scene(feed: Feed) -> None:
            processes = [Process(feed, 0), Process(feed, 1)]
            version = await feed.assign(job("a"))
            await asyncio.gather(*(one.next_job() for one in processes))
            cause = begin(processes[failing].offer(failure("cause")))
            assert not await settled(cause)
            assert await processes[1 - failing].offer(failure("connection closed")) == "drop"
            assert await cause == "drop"
            message = await feed.take(version, 5)
            assert isinstance(message, Failure)
            assert message.error == "cause"
            assert message.trace.startswith(f"process {failing}:\ntrace of cause\n")
            await feed.assign(job("b"))
            assert await asyncio.gather(*(one.next_job() for one in processes)) == [job("b"), job("b")]

        play(scene, size=2)

    def test_a_failure_of_one_fails_an_epoch_of_the_other(self) -> None:
        async def scene(feed: Feed) -> None:
            first, second = Process(feed, 0), Process(feed, 1)
            version = await feed.assign(job("a"))
            await asyncio.gather(first.next_job(), second.next_job())
            assert await asyncio.gather(first.offer(report(1)), second.offer(failure("alone"))) == ["drop", "drop"]
            assert await feed.take(version, 5) == failure("alone")

        play(scene, size=2)

    def test_one_that_hangs_does_not_hold_the_failure_of_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feed_module, "STUCK_S", 0.0)

        async def scene(feed: Feed) -> None:
            first, second = Process(feed, 0), Process(feed, 1)
            version = await feed.assign(job("a"))
            await asyncio.gather(first.next_job(), second.next_job())
            assert await feed.offer(TEAM, 1, 1, 1, failure("alone"), 0.01) == "restart"
            assert await feed.take(version, 5) == failure("alone")
            assert await first.offer(report(1)) == "restart"

        play(scene, size=2)
