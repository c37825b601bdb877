"""Ray's sessions."""

from __future__ import annotations

import subprocess
import sys

import pytest

CYCLES = """
import gc, threading, time
import ray
from tune.resources import ray_session

over = threading.Event()


def allocate():
    while ray.is_initialized():
        time.sleep(0)
    gc.set_threshold(1, 1, 1)
    while not over.is_set():
        [[] for _ in range(100)]


with ray_session("local"):
    gc.disable()
    held = ray.put(1)
    for _ in range(200_000):
        cycle = [ray.ObjectRef(held.binary())]
        cycle.append(cycle)
    gc.set_threshold(1_000_000_000, 10, 10)
    gc.enable()
    thread = threading.Thread(target=allocate, daemon=True)
    thread.start()
over.set()
thread.join()
print("gc", gc.isenabled())
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_session_ends_while_another_thread_works() -> None:
    """The writer of MLflow allocates while the driver lets go of Ray, with the search's garbage still about: a job was
    lost to it once, its trials all done."""
    ended = subprocess.run([sys.executable, "-c", CYCLES], capture_output=True, text=True, timeout=240)
    assert (ended.returncode, ended.stdout.strip()) == (0, "gc True"), ended.stdout + ended.stderr
