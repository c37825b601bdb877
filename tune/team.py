"""The training processes of one slot: how they meet at the feed, and torch's process group for one trial.

Ray Train starts and restarts them together. Each trial gets a process group of its own, which costs milliseconds: when
a process fails and leaves it, the others' exchange fails at once instead of waiting for ever, and no state of a trial
outlives it."""

from __future__ import annotations

import datetime
import sys
import uuid
from typing import Any

import ray
from ray import train
from ray.train.collective import broadcast_from_rank_zero

from tune.worker import Failure, Job, Message

WAIT_S = 20.0
"""How long the feed holds a call that it cannot answer yet."""
LATE_S = 120.0
"""How much longer its answer may take before the feed is given up."""


class Team:
    """One process' view of its group.

    Args:
        feed: handle of the slot's `Feed` actor.
        backend: of torch.distributed.
        timeout_s: longest wait for another process in an exchange of tensors.
    """

    def __init__(self, feed: Any, *, backend: str, timeout_s: float) -> None:
        context = train.get_context()
        self.rank = context.get_world_rank()
        self.size = context.get_world_size()
        self.node = str(ray.get_runtime_context().get_node_id())
        self._feed = feed
        self._backend = backend
        self._timeout = datetime.timedelta(seconds=timeout_s)
        self._store: Any = None
        self._turn = 0
        self._round = 0
        self._name = uuid.uuid4().hex
        if self.rank == 0:
            _answer(feed.enter.remote(self._name))
        if self.size > 1:
            self._name = broadcast_from_rank_zero(self._name)

    def next_job(self) -> Job | None:
        """Waits for the next trial, the same in all processes; None when the slot closes."""
        while True:
            assignment = _answer(self._feed.next_job.remote(self._name, self.rank, self._turn, WAIT_S))
            if assignment is not None:
                self._turn, self._round = assignment.turn, 0
                return assignment.job

    def agree(self, message: Message) -> bool:
        """Tells how an epoch ended here, waits for the other processes and the slot; False to drop the trial.

        Raises RuntimeError if this process must be started again because others hang."""
        self._round += 1
        while True:
            ours = (self._name, self.rank, self._turn, self._round)
            told = self._feed.offer.remote(*ours, message, WAIT_S)
            if isinstance(message, Failure):
                self.unlink()  # only after it is told, so that the others' failures are known as its consequence
            answer = _answer(told)
            if answer == "restart":
                raise RuntimeError("another training process of this trial hangs; all of them are started anew")
            if answer is not None:
                return answer == "go"

    def link(self) -> None:
        """Joins the processes for one trial, if there are several and they use torch."""
        if self.size == 1 or "torch" not in sys.modules:
            return
        import torch.distributed as dist

        if self._store is None:
            self._store = self._meet()
        # Every trial has its own names in the store, so that nothing of an old group is found by a new one.
        stores: Any = dist  # its types lack them
        store = stores.PrefixStore(f"{self._name}-{self._turn}", self._store)
        dist.init_process_group(self._backend, store=store, rank=self.rank, world_size=self.size, timeout=self._timeout)

    def unlink(self) -> None:
        """Leaves the process group of the trial, if there is one."""
        if self._store is not None:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()

    def _meet(self) -> Any:
        """The store of this group of processes, kept by the first."""
        import torch.distributed

        stores: Any = torch.distributed  # its types lack them
        address = store = None
        if self.rank == 0:
            host = ray.util.get_node_ip_address()
            store = stores.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=self._timeout)
            address = (host, store.port)
        host, port = broadcast_from_rank_zero(address)
        return store or stores.TCPStore(host, port, is_master=False, timeout=self._timeout)


def _answer(reference: Any) -> Any:
    return ray.get(reference, timeout=WAIT_S + LATE_S)
