"""What a training process used, epoch by epoch. It goes into the epoch report: workers talk to no tracking server."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

GIB = 2**30


class Meter:
    """Measures from one reading to the next."""

    def __init__(self) -> None:
        self._wall_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def read(self) -> dict[str, float]:
        """`cost/seconds`, `cost/cpu_percent` (100 is one core), `cost/rss_gib` now, and on a GPU the highest
        `cost/gpu_memory_gib` since the last reading, with `cost/gpu_percent` where NVIDIA's Python library is there."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        seconds, busy_s = wall_s - self._wall_s, cpu_s - self._cpu_s
        self._wall_s, self._cpu_s = wall_s, cpu_s
        values = {
            "cost/seconds": seconds,
            "cost/cpu_percent": 100 * busy_s / seconds if seconds > 0 else 0.0,
            "cost/rss_gib": _resident_bytes() / GIB,
        }
        return values | _gpu()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _gpu() -> dict[str, float]:
    torch = sys.modules.get("torch")  # a training without torch must not pay for importing it
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    values = {"cost/gpu_memory_gib": torch.cuda.max_memory_allocated() / GIB}
    torch.cuda.reset_peak_memory_stats()
    try:
        values["cost/gpu_percent"] = float(torch.cuda.utilization())
    except (ImportError, RuntimeError):  # no library, or a GPU that does not tell
        pass
    return values
