"""The part of `routing.py` about cost: memory of pools, time of a swap and of the router, latency of streams."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infosam.data.card import AUTO
from infosam.routing.pool import AdapterPool

SWAPS = 200


def measure_speed(bundle: Path, sizes: Sequence[int], picture: NDArray[np.uint8], requests: int) -> dict[str, float]:
    """For pools of several sizes, all of copies of one bundle, each with weights of its own in memory.

    bundle_mb: the bundle's files. mb_per_adapter: growth of the process per adapter, what the router keeps included.
    swap_ms: median time to put another adapter on. p95, median: of single images one after the other, all of one
    domain, of domains at random, and chosen by the router; mixed_to_single: ratio of the first two p95."""
    figures: dict[str, float] = {}
    pool = AdapterPool.from_folders({"d0": bundle}, device="cpu")
    figures["bundle_mb"] = round(sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()) / 1e6, 3)
    for size in sizes:
        pool.predict_batch([picture] * 2, None, ["d0", AUTO])  # whatever is made on first use is there before and after
        before, held = resident_bytes(), len(pool.domains())
        for number in range(held, size):
            pool.add(f"d{number}", bundle)
        pool.predict_batch([picture] * 2, None, ["d0", AUTO])
        if size > held:
            figures[f"mb_per_adapter_{size}"] = round((resident_bytes() - before) / (size - held) / 1e6, 3)
        names = [f"d{number}" for number in range(size)]
        figures[f"swap_ms_{size}"] = round(swap_ms(pool, names), 3)
        # The streams take turns, so that a busy machine slows them alike.
        streams: dict[str, list[str]] = {
            "single": ["d0"] * requests,
            "mixed": [names[int(one)] for one in np.random.default_rng(0).integers(0, size, requests)],
            "auto": [AUTO] * requests,
        }
        seconds: dict[str, list[float]] = {name: [] for name in streams}
        for number in range(requests):
            for name, stream in streams.items():
                seconds[name].append(timed(lambda one=stream[number]: pool.predict_batch([picture], None, [one])))
        for name, values in seconds.items():
            figures[f"p95_ms_{name}_{size}"] = round(1000 * float(np.quantile(values, 0.95)), 2)
            figures[f"median_ms_{name}_{size}"] = round(1000 * statistics.median(values), 2)
        ratio = figures[f"p95_ms_mixed_{size}"] / figures[f"p95_ms_single_{size}"]
        figures[f"mixed_to_single_{size}"] = round(ratio, 3)
    return figures


def swap_ms(pool: AdapterPool, names: Sequence[str]) -> float:
    """Median time from one adapter worn to the next one worn, in milliseconds."""
    held = [pool._held[name] for name in names]  # the pool's own parts: a prediction around it would take far longer
    seconds = []
    for number in range(SWAPS):
        began = time.perf_counter()
        with pool._shelf.worn(held[number % len(held)]):
            seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
