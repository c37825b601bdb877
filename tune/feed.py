"""The feed: a small actor between a slot and its training processes that says which trial is on and passes reports.

It is where the processes of a slot agree. They get a trial only when all of them ask for one, an epoch is told when all
of them are through it, and the answer to an epoch - go on, or drop the trial - is the same for all. A process goes on
only when the slot asks for the next report, so that a trial stopped after an epoch costs no time beyond it, and what
was checkpointed is what was reported. Every call is answered within the time its caller gives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from tune.worker import Assignment, Failure, Job, Message, Report

STUCK_S = 60.0
"""How long a process whose trial failed waits for the others; then they are taken to hang and all are started anew."""

Answer = Literal["go", "drop", "restart"]


class Feed:
    """State of one slot. Make it an asynchronous actor: `ray.remote(num_cpus=0)(Feed)`."""

    def __init__(self, max_starts: int, size: int = 1) -> None:
        """`max_starts`: how often one trial may be handed out before it counts as the cause of its processes' deaths;
        `size`: training processes of the slot."""
        self._max_starts = max_starts
        self._size = size
        self._changed = asyncio.Condition()
        self._closed = False
        # The trial that is on, as the slot sees it.
        self._version = 0
        self._job: Job | None = None
        self._starts = 0
        self._forgiven = 0  # starts that a lost node ended
        self._told = 0  # the last epoch passed on
        self._is_done = False  # its last message was passed on
        self._unread: deque[Message] = deque()
        self._wanted = False  # the slot waits for a report
        # The processes, all of one team: a restart of the group makes a new one.
        self._team = ""
        self._turn = 0  # trials handed out to this team
        self._handed = 0  # version of the last of them
        self._asking: set[int] = set()
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._offers: dict[int, Message] = {}  # by process, in the order they came
        self._failed_at: float | None = None
        self._concluded = 0  # last round all processes came to
        self._go_until = 0  # last round after which they were told to go on
        self._end: Answer | None = None

    async def assign(self, job: Job) -> int:
        """Makes `job` the trial that is on, whatever was before; returns its version."""
        async with self._changed:
            self._version += 1
            self._job, self._starts, self._forgiven, self._told = job, 0, 0, 0
            self._is_done = self._wanted = False
            self._unread.clear()
            self._advance()
            return self._version

    async def take(self, version: int, timeout_s: float) -> Message | None:
        """The next message of the trial, or None after `timeout_s`. Asking lets the processes go on."""
        async with self._changed:
            if self._is_over(version):
                return None
            self._wanted = True
            self._advance()
            await self._until(lambda: bool(self._unread) or self._is_over(version), timeout_s)
            if self._is_over(version) or not self._unread:
                return None
            self._wanted = False
            return self._unread.popleft()

    async def close(self) -> None:
        """Lets the processes end after their epoch."""
        async with self._changed:
            self._closed = True
            self._advance()

    async def forgive(self, most: int) -> None:
        """A node was lost under the processes: that start does not count against the trial, up to `most` times."""
        if self._starts and self._forgiven < most and not self._is_done:
            self._forgiven += 1
            self._starts -= 1

    async def enter(self, team: str) -> None:
        """Begins the time of a new group of processes; calls in the name of another are told to end."""
        async with self._changed:
            self._team, self._turn, self._handed = team, 0, 0
            self._asking.clear()
            self._begin_turn()
            self._advance()

    async def next_job(self, team: str, rank: int, turn: int, wait_s: float) -> Assignment | None:
        """The trial after `turn` trials, the same for all processes; one without job when the slot closes; None if
        there is none after `wait_s`, then ask again.

        A new team gets the trial its predecessor died in, until that has happened too often: then the trial fails and
        the team waits for another."""
        async with self._changed:
            if team == self._team and self._turn == turn:
                self._asking.add(rank)
                self._advance()
            await self._until(lambda: self._ends(team) or self._turn > turn, wait_s)
            if self._ends(team):
                return Assignment(turn=turn, job=None)
            return Assignment(turn=self._turn, job=self._job) if self._turn > turn else None

    async def offer(
        self, team: str, rank: int, turn: int, round_: int, message: Message, wait_s: float
    ) -> Answer | None:
        """Tells what became of epoch `round_` (counted from 1 in this turn) in one process, and gets the answer for
        all: "go" on, "drop" the trial, or "restart" this process. None if there is none after `wait_s`: ask again."""
        async with self._changed:
            if team == self._team and turn == self._turn and round_ > self._concluded and self._end is None:
                self._offers[rank] = message
                if isinstance(message, Failure) and self._failed_at is None:
                    self._failed_at = _now()
                self._advance()
            await self._until(lambda: self._answer(team, turn, round_) is not None, wait_s)
            if self._failed_at is not None and _now() - self._failed_at > STUCK_S and self._end is None:
                self._conclude("restart")
            return self._answer(team, turn, round_)

    async def state(self) -> dict[str, Any]:
        """For messages about a slot that hangs."""
        trial = self._job.trial_id if self._job else None
        return {"trial": trial, "starts": self._starts, "epoch": self._told, "waiting": sorted(self._offers)}

    def _answer(self, team: str, turn: int, round_: int) -> Answer | None:
        if self._ends(team) or turn != self._turn:
            return "drop"
        # What one process was told, all are told, even if the trial was replaced before they asked.
        return "go" if round_ <= self._go_until else self._end

    def _advance(self) -> None:
        """Everything that follows from a change."""
        if self._end is None and (self._closed or self._handed != self._version):
            self._end = "drop"
        if self._end is None and len(self._offers) == self._size:
            self._conclude("drop")
        if self._end is None and self._wanted and not self._unread:
            self._go_until = self._concluded
        if len(self._asking) == self._size and self._version > self._handed and not (self._closed or self._is_done):
            self._hand_out()
        self._changed.notify_all()

    def _conclude(self, end: Answer) -> None:
        """Passes on what all processes said of a round; if one of them failed, the trial ends with `end` for all."""
        failures = {rank: one for rank, one in self._offers.items() if isinstance(one, Failure)}
        if failures:
            self._unread.append(replace(_joint(failures), starts=self._starts))
            self._end, self._is_done = end, True
        else:
            report = self._offers[0]
            assert isinstance(report, Report)
            if report.epoch > self._told or report.completed:  # else told already, before a restart
                self._told, self._is_done = report.epoch, report.completed
                self._unread.append(replace(report, starts=self._starts))
            self._concluded += 1
        self._offers = {}
        self._changed.notify_all()

    def _hand_out(self) -> None:
        self._handed = self._version
        self._starts += 1
        if self._starts > self._max_starts:
            why = (
                f"the training process died {self._max_starts} times in this trial; if the node ran out of memory, "
                "reserve more for a worker (resources.memory_gib_per_worker) or let `infosam calibrate` find what fits"
            )
            self._unread.append(Failure(error=why, trace=why, starts=self._max_starts))
            self._is_done = True
            return
        self._turn += 1
        self._asking.clear()
        self._begin_turn()

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self._changed.wait_for(condition), timeout_s)
        except TimeoutError:
            return

    def _ends(self, team: str) -> bool:
        return self._closed or team != self._team

    def _is_over(self, version: int) -> bool:
        return self._closed or version != self._version


def _joint(failures: dict[int, Failure]) -> Failure:
    """One failure out of those of several processes. The first is the cause: it breaks the others' connections."""
    first = next(iter(failures.values()))
    traces = [one.trace if len(failures) == 1 else f"process {rank}:\n{one.trace}" for rank, one in failures.items()]
    return replace(first, trace="\n".join(traces))


def _now() -> float:
    return asyncio.get_running_loop().time()
