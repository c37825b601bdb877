"""The dated file of a published result: benchmarks/results/YYYY-MM-DD-NAME.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from infosam.processor import bf16_instructions, capabilities


def publish(out: Path, name: str, figures: Mapping[str, Any], *, device: str = "cpu", **more: Any) -> Path:
    """Writes `figures` with everything one must know to measure them again; a file of the same day is replaced.

    `load` is the machine's mean number of busy processes over the last minute and quarter of an hour at the end: above
    its cores, something else was running."""
    now, load = datetime.now(UTC), os.getloadavg()
    content = {
        "at": now.isoformat(timespec="seconds"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_told, sys.argv[1:])]),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "load": {"1_min": round(load[0], 1), "15_min": round(load[2], 1)},
        "torch": torch.__version__,
        "figures": figures,
        **more,
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{now:%Y-%m-%d}-{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def newest(results: Path, name: str) -> dict[str, Any] | None:
    """The newest result of that name, None without one."""
    files = sorted(results.glob(f"[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]-{name}.json"))
    found: dict[str, Any] | None = json.loads(files[-1].read_text(encoding="utf-8")) if files else None
    return found


def commit() -> str:
    """The commit that the work tree stands on."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """Kind and size of this machine."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _told(argument: str) -> str:
    """A path of this machine is nobody else's business; its last part says what it is."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _processor() -> str:
    able = " and ".join(bf16_instructions()) or "nothing"
    return f"CPU ({capabilities().get('cpu_name', 'unknown')}, for bfloat16: {able})"
