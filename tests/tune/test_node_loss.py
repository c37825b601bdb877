"""What Tune counts against a trial whose node was lost; tests/cluster loses real ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune.node_loss import MOST_LOSSES, NodeLosses

NODE = "Failure # 1 (occurred at noon)\nThe actor died because its node has died. Node Id: 7\n"
PROCESS = "Failure # 1 (occurred at noon)\nThe actor died unexpectedly: SIGKILL\n"


def failures(tmp_path: Path, *reasons: str) -> int:
    """What is counted of a trial that failed for these reasons, as Tune writes them down."""
    path = tmp_path / "error.txt"
    metadata = SimpleNamespace(num_failures=0)
    trial: Any = SimpleNamespace(trial_id="t0", error_file=str(path), run_metadata=metadata)
    losses = NodeLosses()
    for reason in reasons:
        with path.open("a") as file:
            file.write(reason)
        metadata.num_failures += 1
        losses.on_trial_recover(0, [], trial)
    return int(metadata.num_failures)


@pytest.mark.parametrize(
    ("reasons", "counted"),
    [
        ([NODE, NODE, NODE], 0),
        ([PROCESS, NODE, PROCESS], 2),
        ([NODE] * (MOST_LOSSES + 2), 2),
    ],
)
def test_only_processes_that_died_by_themselves_count(tmp_path: Path, reasons: list[str], counted: int) -> None:
    assert failures(tmp_path, *reasons) == counted
