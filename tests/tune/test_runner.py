"""Whole sweeps: records, champion, refusals, and the real training from images to a registered adapter."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from infosam.errors import ConfigError, DataError, UserError, WeightsError
from infosam.evaluation import evaluate_bundle
from infosam.resolvers import resolve_domain
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.weights import save_state
from tune.champions import champions
from tune.config import SweepConfig, parse_sweep_config
from tune.home import Home
from tune.results import show_outcome
from tune.runner import SweepFailed, run_sweep

pytestmark = pytest.mark.usefixtures("ray_cluster")


def all_runs(home: Home) -> list[Run]:
    client = MlflowClient(tracking_uri=home.tracking_uri)
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


def changed(config: SweepConfig, **sections: dict[str, Any]) -> SweepConfig:
    settings = config.model_dump()
    for name, values in sections.items():
        settings[name] = settings[name] | values
    return SweepConfig.model_validate(settings)


def test_a_sweep_is_recorded_in_full(sweep_config: SweepConfig, home: Home, console: Console) -> None:
    outcome = run_sweep(sweep_config, home=home, console=console, training="tune.noop")
    found = {run.data.tags.get("trial_id", ""): run for run in all_runs(home)}
    assert set(found) == {"", *outcome.ledger.trials}
    for name, trial in outcome.ledger.trials.items():
        assert trial.end is not None
        assert found[name].info.status == trial.end.state
        assert set(found[name].data.params) == {"optim.lr", "peft.rank"}
        assert trial.best is not None
        assert found[name].data.metrics["val/dice"] == trial.epochs[-1].values["val/dice"]
    parent = found[""]
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == outcome.sweep_id == "disc"
    assert "## Sweep disc" in parent.data.tags["mlflow.note.content"]
    assert parent.data.tags["promotion"] == "not tried"  # a training that only counts leaves no checkpoint
    assert (outcome.folder / "sweep.yaml").is_file()
    lines = (outcome.folder / "events.jsonl").read_text().splitlines()
    assert len(lines) == 14 + sum(len(trial.epochs) for trial in outcome.ledger.trials.values())


def test_a_dead_tracker_does_not_stop_a_sweep(sweep_config: SweepConfig, home: Home, console: Console) -> None:
    config = changed(sweep_config, tracking={"uri": "http://127.0.0.1:9"}, search={"trials": 2})
    outcome = run_sweep(config, home=home, console=console, training="tune.noop")
    assert len(outcome.ledger.trials) == 2
    assert all(trial.end for trial in outcome.ledger.trials.values())
    assert outcome.tracking is not None
    assert outcome.tracking.unwritten > 0
    show_outcome(console, outcome)
    assert "events.jsonl" in console.export_text()


def test_a_sweep_without_any_result_fails_with_the_reason(
    sweep_config: SweepConfig, home: Home, console: Console
) -> None:
    config = changed(sweep_config, search={"trials": 2})
    settings = config.model_dump() | {"space": {"optim.lr": {"choice": [0.6]}}}
    settings["run"]["train"]["epochs"] = 2
    settings["scheduler"]["grace_epochs"] = 2
    with pytest.raises(SweepFailed, match=r"every trial of disc failed.*is nan in epoch"):
        run_sweep(_always_nan(settings), home=home, console=console, training="nan_training")
    assert {run.info.status for run in all_runs(home)} == {"FAILED"}


def _always_nan(settings: dict[str, Any]) -> SweepConfig:
    return parse_sweep_config(settings, [], source="test")


def test_interrupting_keeps_partial_results_and_closes_every_run(
    sweep_config: SweepConfig, home: Home, console: Console
) -> None:
    config = changed(sweep_config, run={"train": {"epochs": 400, "batch_size": 2}}, scheduler={"kind": "none"})

    class InterruptAt3(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            if "epoch 3/400" in str(objects):
                os.kill(os.getpid(), signal.SIGINT)
            super().print(*objects, **options)

    with Path(os.devnull).open("w") as nowhere:
        outcome = run_sweep(config, home=home, console=InterruptAt3(file=nowhere), training="odd_training")
    assert outcome.interrupted
    assert {run.info.status for run in all_runs(home)} == {"KILLED"}


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["data=nowhere"], DataError, "nowhere"),
        (["domain=leaf"], ConfigError, "holds 'disc'"),
        (["run.model.name=vit_b"], WeightsError, "official checkpoint"),
        (["resources.gpus_per_worker=1"], UserError, "no node can hold one worker"),
        (["search.storage=rdb"], UserError, "INFOSAM_STUDY_URL"),
    ],
)
def test_bad_input_is_refused_before_anything_is_recorded(
    sweep_config: SweepConfig, home: Home, console: Console, overrides: list[str], error: type[Exception], words: str
) -> None:
    config = parse_sweep_config(sweep_config.model_dump(mode="json"), overrides, source="test")
    with pytest.raises(error) as caught:
        run_sweep(config, home=home, console=console)
    assert words in str(caught.value)
    assert not home.database.exists()
    assert not home.sweeps.exists() or not list(home.sweeps.iterdir())


@pytest.mark.slow
def test_a_real_sweep_ends_with_a_champion(dataset: Path, home: Home, console: Console, tmp_path: Path) -> None:
    """Real training of a vit_nano with random weights on a small canvas: what it learns beats both baselines."""
    torch.manual_seed(0)
    weights = tmp_path / "nano.safetensors"
    save_state(build_sam(architecture("vit_nano")).state_dict(), weights)
    settings = {
        "data": str(dataset),
        "run": {
            "model": {"checkpoint": str(weights), "image_px": 64},
            "train": {"epochs": 6, "batch_size": 2},
            "info": {"compression": 0.0, "distillation": 0.0},
        },
        "space": {
            "peft.kind": {"choice": ["lora", "adapter"]},
            "info.distillation": {"log_uniform": [0.1, 1.0], "or_zero": True},
            "optim.lr": {"log_uniform": [1e-3, 4e-3]},
        },
        "search": {"trials": 4, "points": [{"peft.kind": "lora"}, {"peft.kind": "adapter"}]},
        "scheduler": {"grace_epochs": 2, "reduction": 2.0},
    }
    outcome = run_sweep(parse_sweep_config(settings, [], source="test"), home=home, console=console)
    show_outcome(console, outcome)
    assert "Champion of disc" in console.export_text()
    assert all(trial.end and trial.end.state != "FAILED" for trial in outcome.ledger.trials.values())
    assert {run.info.status for run in all_runs(home)} <= {"FINISHED", "KILLED"}
    assert [(gain.split, gain.prompt) for gain in outcome.gains] == [
        ("val", "box"), ("val", "none"), ("test", "box"), ("test", "none"),
    ]  # fmt: skip
    assert outcome.overlay is not None
    assert outcome.overlay.is_file()
    assert outcome.promotion is not None
    assert outcome.promotion.promoted, outcome.promotion.reasons
    (champion,) = champions()
    assert champion.tags["sweep_id"] == outcome.sweep_id
    completed = [run for run in all_runs(home) if "images_epoch" in run.data.tags]
    ends = [trial.end.reason for trial in outcome.ledger.trials.values() if trial.end]
    assert len(completed) == ends.count("completed") >= 1
    client = MlflowClient(tracking_uri=home.tracking_uri)
    shown = {
        frozenset(file.path.partition("+")[0] for file in client.list_artifacts(run.info.run_id, "images"))
        for run in completed
    }
    assert shown == {frozenset(f"images/validation~000{row}" for row in range(3))}  # the same in all
    test = evaluate_bundle(resolve_domain("disc"), dataset, "test", checkpoint=weights)
    assert test.row("adapter", "box").dice == outcome.gains[2].adapter
