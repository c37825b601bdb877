"""Slots on a real GPU: what a trial took is free for the next, and two trials share one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune.config import parse_sweep_config
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import make_plan

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

SLACK_BYTES = 2**20
"""Rounding of the allocator."""


def run(data: Path, home: Home, rates: list[float], *, slots: int, gpus: float) -> Ledger:
    """A sweep of LoRA at these learning rates, none stopped early."""
    from tune.study import Part, search

    settings: dict[str, Any] = {
        "data": str(data),
        "run": {"model": {"image_px": 64}, "train": {"epochs": 2, "batch_size": 2, "device": "cuda"}},
        "space": {"optim.lr": {"choice": sorted({*rates})}},
        "search": {"trials": len(rates), "points": [{"optim.lr": rate} for rate in rates]},
        "scheduler": {"kind": "none"},
        "resources": {"gpus_per_worker": gpus},
    }
    ledger = Ledger()
    plan = make_plan(parse_sweep_config(settings, [], source="test"), home, "faulty_training")
    search([Part(plan=plan, ledger=ledger)], folder=plan.folder, slots=slots)
    return ledger


def ends(ledger: Ledger) -> list[str]:
    return [trial.end.reason if trial.end else "none" for _, trial in sorted(ledger.trials.items())]


def test_the_memory_of_a_trial_is_given_back_also_where_it_ran_out(dataset: Path, home: Home) -> None:
    """The first trial fills the caches that all of them share, so the second begins at the base level."""
    ledger = run(dataset, home, [1e-3, 1e-3, 0.05, 1e-3], slots=1, gpus=1)
    assert ends(ledger) == ["completed", "completed", "error", "completed"]
    end = ledger.trials["t0002"].end
    assert end is not None
    assert "out of memory" in (end.error or "")
    before = [ledger.trials[f"t{number:04d}"].epochs[0].values["gpu/bytes_before"] for number in range(4)]
    assert before[1] > 0
    assert all(one <= before[1] + SLACK_BYTES for one in before[2:])


def test_two_trials_share_a_gpu(dataset: Path, home: Home) -> None:
    ledger = run(dataset, home, [1e-3, 2e-3], slots=2, gpus=0.5)
    assert ends(ledger) == ["completed", "completed"]
    processes = {trial.epochs[0].values["process"] for trial in ledger.trials.values()}
    assert len(processes) == 2
