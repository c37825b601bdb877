"""What Tune counts against a trial whose node was lost; tests/cluster loses real ones."""

from __future__ import annotations

import pickle
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from tune.node_loss import MOST_LOSSES, NODE_DIED, Fate, LostWorkers, NodeLosses

NODE = "Failure # 1 (occurred at noon)\nThe actor died because its node has died. Node Id: 7\n"
NO_ROOM = (
    "Failure # 1 (occurred at noon)\ntune.slot.SlotBroken: the worker group ended: its startup timed out; "
    f"no room was found for a process that is gone because {NODE_DIED}\n"
)
SILENT = (
    "Failure # 1 (occurred at noon)\nThe actor 7f is unavailable: The actor is temporarily unavailable: RpcError: RPC "
    "error: Socket closed rpc_code: 14. The task may or may not have been executed on the actor.\n"
)
PROCESS = "Failure # 1 (occurred at noon)\nThe actor died unexpectedly: SIGKILL\n"


def failures(tmp_path: Path, *reasons: str, fate: Fate = {"7f": None}.get) -> list[int]:
    """What is counted of a trial that failed for these reasons, as Tune writes them down, at once and a little later;
    `fate`: of actors that did not answer."""
    path = tmp_path / "error.txt"
    metadata = SimpleNamespace(num_failures=0)
    trial: Any = SimpleNamespace(trial_id="t0", error_file=str(path), run_metadata=metadata)
    seconds = count()
    losses = NodeLosses(fate=fate, clock=lambda: next(seconds))
    for reason in reasons:
        with path.open("a") as file:
            file.write(reason)
        metadata.num_failures += 1
        losses.on_trial_recover(0, [], trial)
    found = [int(metadata.num_failures)]
    for _ in range(3):
        losses.on_step_end(0, [])
    return [*found, int(metadata.num_failures)]


@pytest.mark.parametrize(
    ("reasons", "counted"),
    [
        ([NODE, NODE, NODE], 0),
        ([PROCESS, NODE, PROCESS], 2),
        ([NODE, NO_ROOM], 0),
        ([NODE] * (MOST_LOSSES + 2), 2),
    ],
)
def test_only_processes_that_died_by_themselves_count(tmp_path: Path, reasons: list[str], counted: int) -> None:
    assert failures(tmp_path, *reasons) == [counted, counted]


@pytest.mark.parametrize(("alone", "counted"), [(None, [1, 1]), (False, [1, 1]), (True, [1, 2])])
def test_what_does_not_answer_counts_once_it_is_known_to_have_died_alone(
    tmp_path: Path, alone: bool | None, counted: list[int]
) -> None:
    assert failures(tmp_path, PROCESS, SILENT, fate={"7f": alone}.get) == counted


def test_tune_can_keep_it() -> None:
    losses = NodeLosses(clock=lambda: 0.0)
    assert isinstance(pickle.loads(pickle.dumps(losses)), NodeLosses)


@pytest.mark.parametrize(
    ("errors", "fates", "counted"),
    [
        ({1: f"The actor died because {NODE_DIED}. Node Id: 7"}, [], [MOST_LOSSES]),
        ({0: "Connection closed by peer", 1: f"The actor died because {NODE_DIED}."}, [], [MOST_LOSSES]),
        ({1: "The actor died unexpectedly: SIGKILL"}, [], []),
        ({1: SILENT}, [None, None, False], [MOST_LOSSES]),
        ({1: SILENT}, [None, True], []),
        ({1: SILENT}, [None] * 60, [MOST_LOSSES]),
    ],
    ids=["node", "node, which broke the other process", "itself", "silent node", "silent itself", "silent for good"],
)
def test_processes_that_were_lost_with_their_node_are_told_to_the_feed(
    errors: dict[int, str], fates: list[bool | None], counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray Train hands over what became of them."""
    monkeypatch.setattr("ray.get", lambda answer, timeout: answer)
    told: list[int] = []
    feed = SimpleNamespace(forgive=SimpleNamespace(remote=told.append))
    found: dict[int, Exception] = {
        rank: WorkerHealthCheckFailedError("A worker health check failed.", failure=RayActorError(error_msg=text))
        for rank, text in errors.items()
    }
    left = iter(fates)
    watch = LostWorkers(feed, fate=lambda actor: next(left), pause=lambda seconds: None)
    watch.after_exception(None, found)
    assert told == counted
    assert watch.waits == bool(counted)
    assert next(left, "none") == "none"
    watch.after_exception(None, {0: RuntimeError("raised by itself")})
    assert not watch.waits
