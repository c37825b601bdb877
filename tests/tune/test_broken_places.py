"""What becomes of trials and rooms where slots cannot start; tests/faults breaks a real node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune.broken_places import MOST_FORGIVEN, BrokenPlaces
from tune.config import ResourceConfig
from tune.worker import Report

NODES = [{"CPU": 2.0}, {"CPU": 1.0}]
REPORT = Report(epoch=1, values={}, checkpoint=None, is_best=True, completed=False)


class Room:
    """Occupied at once, until it is released."""

    def __init__(self, node: str, bundle: Mapping[str, float]) -> None:
        self.node, self.bundle = node, dict(bundle)
        self.is_granted, self.is_released = True, False

    def release(self) -> None:
        self.is_released = True


class Story:
    """A search and its failures, as Tune tells and counts them."""

    def __init__(self, folder: Path, *, sweeps: int = 1) -> None:
        self.rooms: list[Room] = []
        self.places = BrokenPlaces(ResourceConfig(), sweeps, hold=self._hold, nodes=lambda: NODES)
        self._folder = folder
        self._trials: dict[str, Any] = {}

    def _hold(self, node: str, bundle: Mapping[str, float]) -> Room:
        self.rooms.append(Room(node, bundle))
        return self.rooms[-1]

    @property
    def held(self) -> list[str]:
        return [room.node for room in self.rooms if not room.is_released]

    def fail(self, name: str, node: str | None, sweep: str = "square") -> int:
        """A slot of this trial dies, on this node if it could not start; what Tune has counted of the trial then."""
        path = self._folder / name
        metadata = SimpleNamespace(num_failures=0)
        fresh = SimpleNamespace(trial_id=name, error_file=str(path), run_metadata=metadata, config={"sweep": sweep})
        trial = self._trials.setdefault(name, fresh)
        words = f"cannot start on node {node}: RuntimeError: no GPU" if node else "the actor died"
        path.write_text(f"Failure # 1 (occurred at noon)\ntune.slot.SlotBroken: the training process {words}\n")
        trial.run_metadata.num_failures += 1
        self.places.on_trial_recover(0, [], trial)
        return int(trial.run_metadata.num_failures)

    def report(self) -> None:
        self.places.on_trial_result(0, [], None, {"report": REPORT})


def test_only_starts_that_fail_are_forgiven(tmp_path: Path) -> None:
    story = Story(tmp_path)
    assert [story.fail("t0", "a"), story.fail("t0", None), story.fail("t0", "b")] == [0, 1, 1]
    assert not story.held


def test_room_is_occupied_where_it_repeats_and_given_back_at_the_end(tmp_path: Path) -> None:
    story = Story(tmp_path)
    for name in ("t0", "t1"):
        story.fail(name, "a")
    assert story.held == ["a"]
    assert story.rooms[0].bundle == {"CPU": 1.0}
    story.rooms[0].is_granted = False  # a slot is still there
    story.fail("t2", "a")
    assert story.held == ["a"]
    story.rooms[0].is_granted = True
    story.fail("t2", "a")
    assert story.held == ["a", "a"]
    assert story.places.none_left is None
    story.places.close()
    assert not story.held


def test_the_search_ends_when_no_room_is_left(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.report()  # before any failure: the machines broke later
    for node in ("a", "a", "b", "b", "a"):
        assert story.places.none_left is None
        assert story.fail("t0", node) == 0
    assert story.places.none_left == ("no training process can start anywhere; the last one said: RuntimeError: no GPU")
    assert not story.held


@pytest.mark.parametrize("sweeps", [1, 2])
def test_where_others_can_train_the_trials_are_to_blame(tmp_path: Path, sweeps: int) -> None:
    """Reports come meanwhile, or only one of two domains cannot be loaded."""
    story = Story(tmp_path, sweeps=sweeps)
    for node in ("a", "a", "b", "b", "a"):
        story.fail("t0", node)
        if sweeps == 1:
            story.report()
    assert story.places.none_left is None
    assert not story.held
    assert [story.fail("t0", "a"), story.fail("t0", "b")] == [1, 2]


def test_a_trial_is_not_forgiven_for_ever(tmp_path: Path) -> None:
    story = Story(tmp_path)
    assert [story.fail("t0", f"n{number}") for number in range(MOST_FORGIVEN + 2)][-2:] == [1, 2]
