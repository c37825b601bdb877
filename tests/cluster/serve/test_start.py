from __future__ import annotations

import threading

from cluster.serve.start import end_within


def test_what_hangs_is_left_behind() -> None:
    held = threading.Event()
    assert not end_within(held.wait, 0.05)
    held.set()


def test_what_ends_is_waited_for_and_may_fail() -> None:
    done: list[int] = []
    assert end_within(lambda: done.append(1), 30)
    assert done == [1]
    assert end_within(lambda: [][1], 30)
