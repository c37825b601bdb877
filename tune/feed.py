"""The feed: a small actor between a slot and its worker that says which trial is on and passes reports one by one.

Each assignment has a version. The worker's `offer` returns only when the slot asks for the next report, so that a trial
stopped after an epoch costs no time beyond it, and what was checkpointed is what was reported."""

from __future__ import annotations

import asyncio
from typing import Any

from tune.worker import Failure, Job, Message


class Feed:
    """State of one slot. Make it an asynchronous actor: `ray.remote(num_cpus=0)(Feed)`."""

    def __init__(self, max_starts: int) -> None:
        """`max_starts`: how often one trial may be handed to a worker before it counts as the cause of its deaths."""
        self._max_starts = max_starts
        self._version = 0
        self._starts = 0
        self._job: Job | None = None
        self._message: Message | None = None
        self._wanted = False
        self._closed = False
        self._changed = asyncio.Condition()

    async def assign(self, job: Job) -> int:
        """Makes `job` the trial that is on, whatever was before; returns its version."""
        async with self._changed:
            self._version += 1
            self._starts = 0
            self._job, self._message, self._wanted = job, None, False
            self._changed.notify_all()
            return self._version

    async def next_job(self, seen: int) -> tuple[int, Job] | None:
        """Waits for a trial newer than `seen` (0: any) and returns it with its version; None when the slot closes.

        A worker that was restarted asks with 0 and gets the trial its predecessor died in, until that has happened
        too often: then the trial fails and the worker waits for another."""
        async with self._changed:
            while True:
                await self._newer_than(seen)
                if self._closed or self._job is None:
                    return None
                self._starts += 1
                if self._starts <= self._max_starts:
                    return self._version, self._job
                seen = self._version
                why = f"the training process died {self._max_starts} times in this trial"
                self._message = Failure(error=why, trace=why)
                self._changed.notify_all()

    async def offer(self, version: int, message: Message) -> bool:
        """Hands `message` to the slot and waits for its decision: True to go on, False to drop the trial."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._message is None or self._is_over(version))
            if self._is_over(version):
                return False
            self._message = message
            self._changed.notify_all()
            await self._changed.wait_for(lambda: (self._message is None and self._wanted) or self._is_over(version))
            return not self._is_over(version)

    async def take(self, version: int, timeout_s: float) -> Message | None:
        """The next message of the trial, or None after `timeout_s`. Asking lets the worker go on."""
        async with self._changed:
            if self._is_over(version):
                return None
            self._wanted = True
            self._changed.notify_all()
            try:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self._message is not None or self._is_over(version)), timeout_s
                )
            except TimeoutError:
                return None
            message, self._message, self._wanted = self._message, None, False
            return message

    async def close(self) -> None:
        """Lets the worker end after its epoch."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def _newer_than(self, seen: int) -> None:
        await self._changed.wait_for(lambda: self._closed or self._version > seen)

    def _is_over(self, version: int) -> bool:
        return self._closed or version != self._version

    async def state(self) -> dict[str, Any]:
        """For messages about a slot that hangs."""
        return {"version": self._version, "trial": self._job and self._job.trial_id, "starts": self._starts}
