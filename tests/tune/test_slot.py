"""Slots under the real training: nothing of a trial is left to the next, and several processes train one trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sweep_check import reported

from infosam.config import RunConfig
from infosam.training import load_materials, train
from tune.config import parse_sweep_config
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import make_plan

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]

RUN = {
    "model": {"image_px": 64},
    # bfloat16, which auto takes on some processors, differs by a percent when a batch is summed in other parts.
    "train": {"epochs": 2, "batch_size": 4, "device": "cpu", "precision": "float32"},
}


def run_points(data: Path, home: Home, points: list[dict[str, Any]], workers: int) -> Ledger:
    """A sweep of these points in one slot, none stopped early."""
    from tune.study import Part, search

    settings = {
        "data": str(data),
        "run": RUN,
        "space": {
            "peft.kind": {"choice": ["adapter", "lora"]},
            "optim.lr": {"choice": sorted({point["optim.lr"] for point in points})},
        },
        "search": {"trials": len(points), "points": points},
        "scheduler": {"kind": "none"},
        "resources": {"workers_per_trial": workers},
    }
    ledger = Ledger()
    plan = make_plan(parse_sweep_config(settings, [], source="test"), home, "faulty_training")
    search([Part(plan=plan, ledger=ledger)], folder=plan.folder, slots=1)
    return ledger


def ends(ledger: Ledger) -> list[str]:
    return [trial.end.reason if trial.end else "none" for _, trial in sorted(ledger.trials.items())]


def test_a_trial_is_the_same_after_others_and_in_a_fresh_process(dataset: Path, home: Home) -> None:
    """Bit for bit, after another kind of adapter and one that ran out of memory, and first in a new process."""
    watched = {"peft.kind": "lora", "optim.lr": 1e-3}
    others = [{"peft.kind": "adapter", "optim.lr": 2e-3}, {"peft.kind": "lora", "optim.lr": 0.05}]
    killed = {"peft.kind": "lora", "optim.lr": 0.07}  # the next process reports its last epoch and trains nothing
    ledger = run_points(dataset, home, [*others, watched, killed, watched], workers=1)
    assert ends(ledger) == ["completed", "error", "completed", "completed", "completed"]
    after, fresh = reported(ledger.trials["t0002"]), reported(ledger.trials["t0004"])
    assert after == fresh
    assert [epoch for epoch, _ in fresh] == [1, 2]
    assert [epoch for epoch, _ in reported(ledger.trials["t0003"])] == [1, 2]
    end = ledger.trials["t0001"].end
    assert end is not None
    assert "out of memory" in (end.error or "")
    folders = {str(Path(epoch.checkpoint or "").parents[1].name) for epoch in ledger.trials["t0004"].epochs}
    assert folders == {"t0004"}


def test_two_processes_train_one_trial(dataset: Path, home: Home) -> None:
    """As one process would, and a trial that raises in one of them fails alone though the other waits for it."""
    point = {"peft.kind": "lora", "optim.lr": 1e-3}
    ledger = run_points(dataset, home, [point, {"peft.kind": "lora", "optim.lr": 0.06}, point], workers=2)
    assert ends(ledger) == ["completed", "error", "completed"]
    end = ledger.trials["t0001"].end
    assert end is not None
    assert end.error == "RuntimeError: only here"
    assert "process 0:" in (end.trace or "")  # whose exchange broke off
    first, last = reported(ledger.trials["t0000"]), reported(ledger.trials["t0002"])
    assert first == last
    config = RunConfig.model_validate({**RUN, "peft": {"kind": "lora"}, "optim": {"lr": 1e-3}})
    materials = load_materials(config.model, dataset, device="cpu", baselines=False)
    alone = list(train(config, materials))
    assert [epoch for epoch, _ in first] == [report.epoch for report in alone]
    for (epoch, found), report in zip(first, alone, strict=True):
        for name, value in found.items():
            # The first epoch is one step; Adam makes whole steps of what differs in the last bits of its gradients.
            before_any_step = epoch == 1 and not name.startswith("val/")
            assert value == pytest.approx(report.values[name], abs=1e-3 if before_any_step else 0.02), name
