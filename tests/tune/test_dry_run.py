"""What `sweep --dry-run` checks, measures and prints, and that it leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from optuna.study import StudyDirection
from rich.console import Console
from typer.testing import CliRunner

from infosam.cost import Cost
from infosam.errors import ConfigError, DataError, UserError, WeightsError
from tune.cli import register
from tune.config import SchedulerConfig, SweepConfig, parse_sweep_config
from tune.dry_run import DryRun, dry_run, expected_epochs, largest_point, plan_table, remarks
from tune.home import Home
from tune.packing import TooTight
from tune.probe import Measured
from tune.study_store import open_study

COST = Cost(
    first_step_s=3.0, step_s=1.0, image_s=0.5, steps=10, val_images=20, memory_gib=1.5, gpu_memory_gib=4.0
)  # fmt: skip


def changed(config: SweepConfig, *overrides: str) -> SweepConfig:
    return parse_sweep_config(config.model_dump(mode="json"), overrides, source="test")


def planned(config: SweepConfig, slots: int = 2) -> DryRun:
    measured = Measured(load_s=5.0, cost=COST)
    return DryRun(config=config, tracking_uri="sqlite:///x.db", point={}, slots=slots, measured=measured)


class TestEstimate:
    def test_asha_halves_the_trials_at_each_rung(self) -> None:
        asha = SchedulerConfig(kind="asha", grace_epochs=2, reduction=2)
        assert expected_epochs(asha, 8) == 2 + 2 / 2 + 4 / 4
        assert expected_epochs(SchedulerConfig(kind="none"), 8) == 8

    def test_time_and_gpu_hours_follow_from_a_step(self, sweep_config: SweepConfig) -> None:
        overrides = ["scheduler.kind=none", "resources.gpus_per_worker=0.5", "run.train.epochs=4", "search.trials=6"]
        result = planned(changed(sweep_config, *overrides))
        assert result.full_trial_s == 4 * (10 * 1.0 + 20 * 0.5) + 10 * 2.0
        assert result.search_s == 5.0 + 6 * 100 / 2
        assert result.finals_s == 0
        assert result.gpu_hours == pytest.approx(0.5 * 6 * 100 / 3600)

    def test_repeats_come_after_the_search_and_twins_after_them(self, sweep_config: SweepConfig) -> None:
        overrides = ["scheduler.kind=none", "final={top: 2, seeds: 3, twin: true}", "resources.gpus_per_worker=1"]
        result = planned(changed(sweep_config, *overrides))
        assert result.finals_s == (2 + 2) * 100  # four repeats, then three twins, two at a time
        assert result.gpu_hours == pytest.approx((6 + 7) * 100 / 3600)

    def test_one_trial_is_the_least_a_sweep_takes(self, sweep_config: SweepConfig) -> None:
        result = planned(changed(sweep_config, "search.trials=1", "scheduler.kind=none"))
        assert result.search_s == 5.0 + 100

    def test_trials_too_short_to_be_stopped_are_told(self, sweep_config: SweepConfig) -> None:
        short = changed(sweep_config, "run.train.epochs=3", "scheduler.grace_epochs=4")
        told = "No trial is stopped early: it has 3 epochs, scheduler.grace_epochs is 4."
        assert told in remarks([planned(short)])
        assert told not in remarks([planned(changed(short, "scheduler.kind=none"))])

    def test_memory_is_that_of_a_whole_trial(self, sweep_config: SweepConfig, console: Console) -> None:
        console.print(plan_table(planned(changed(sweep_config, "resources.workers_per_trial=2"))))
        told = "3.00 GiB, GPU 8.00 GiB; each of its 2 workers 1.50 GiB, GPU 4.00 GiB"
        assert told in console.export_text()

    def test_a_budget_that_ends_the_search_is_told(self, sweep_config: SweepConfig) -> None:
        lines = remarks([planned(changed(sweep_config, "budget.hours=0.001"))])
        assert "budget.hours = 0.001 ends the search" in lines[0]


def test_the_largest_configuration_is_measured(sweep_config: SweepConfig) -> None:
    space = {
        "peft.kind": {"choice": ["lora", "adapter"]},
        "peft.rank": {"int_uniform": [2, 4], "when": {"peft.kind": "lora"}},
        "peft.width": {"int_uniform": [8, 64], "when": {"peft.kind": "adapter"}},
        "info.compression": {"log_uniform": [0.03, 10.0], "or_zero": True},
    }
    config = SweepConfig.model_validate(sweep_config.model_dump() | {"space": space})
    assert largest_point(config) == {"peft.kind": "adapter", "peft.width": 64, "info.compression": 10.0}
    small = SweepConfig.model_validate(config.model_dump() | {"constraints": {"adapter_mb": 0.05}})
    assert largest_point(small)["peft.kind"] == "lora"


@pytest.mark.usefixtures("ray_cluster")
class TestDryRun:
    def test_it_prints_the_plan_and_leaves_nothing(
        self, sweep_config: SweepConfig, home: Home, console: Console
    ) -> None:
        (result,) = dry_run([changed(sweep_config, "run.model.image_px=64")], home=home, console=console)
        cost = result.measured.cost
        assert (result.slots, cost.steps, cost.val_images) == (2, 3, 3)
        assert cost.first_step_s > 0
        assert cost.step_s > 0
        assert 0.05 < cost.memory_gib < 8
        assert cost.gpu_memory_gib == 0
        text = console.export_text()
        for words in ("Plan of a sweep over disc", "6 of tpe", "rank 8", "estimated time", "GPU-hours", "GiB"):
            assert words in text
        assert not home.folder.exists()

    @pytest.mark.parametrize(
        ("overrides", "error", "words"),
        [
            (["data=nowhere"], DataError, "nowhere"),
            (["domain=leaf"], ConfigError, "holds 'disc'"),
            (["run.model.name=vit_b"], WeightsError, "official checkpoint"),
            (["resources.gpus_per_worker=1"], UserError, "no node can hold one worker"),
            (["tracking.uri=http://127.0.0.1:9"], UserError, "tracking.uri: no answer from http://127.0.0.1:9"),
            (["tracking.uri=file:///runs"], UserError, "is a folder"),
            (["search.storage=rdb"], UserError, "INFOSAM_STUDY_URL"),
            (["constraints.adapter_mb=0.0001"], ConfigError, "no configuration of the space keeps them"),
        ],
    )
    def test_what_a_sweep_would_be_refused_for(
        self,
        sweep_config: SweepConfig,
        home: Home,
        console: Console,
        overrides: list[str],
        error: type[Exception],
        words: str,
    ) -> None:
        with pytest.raises(error) as caught:
            dry_run([changed(sweep_config, *overrides)], home=home, console=console)
        assert words in str(caught.value)
        assert not home.folder.exists()

    def test_more_processes_than_memory_holds(
        self, sweep_config: SweepConfig, home: Home, console: Console, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tune.preflight.cluster_nodes", lambda: [{"CPU": 2.0, "memory": 0.4 * 2**30}])
        with pytest.raises(TooTight, match=r"set resources\.slots=1"):
            dry_run([sweep_config], home=home, console=console)

    def test_a_study_of_the_same_name(
        self, sweep_config: SweepConfig, home: Home, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INFOSAM_STUDY_URL", f"sqlite:///{tmp_path / 'study.db'}")
        config = changed(sweep_config, "search.storage=rdb")
        open_study("disc", config.search, None, [StudyDirection.MAXIMIZE], resume=False)
        with pytest.raises(UserError, match="already holds a study named 'disc'"):
            dry_run([config], home=home, console=console)

    def test_a_folder_that_cannot_be_made(
        self, sweep_config: SweepConfig, home: Home, console: Console, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        config = changed(sweep_config, f"storage={tmp_path / 'file' / 'sweeps'}")
        with pytest.raises(UserError, match="cannot be written to"):
            dry_run([config], home=home, console=console)

    def test_a_step_that_cannot_be_taken_is_refused_with_its_reason(
        self, sweep_config: SweepConfig, home: Home, console: Console
    ) -> None:
        """Found by the worker: the driver does not look at the images."""
        config = changed(sweep_config, "run.train.batch_size=64", "run.model.image_px=64")
        with pytest.raises(DataError, match=r"fewer than train\.batch_size = 64"):
            dry_run([config], home=home, console=console)


def test_the_command_takes_it(sweep_config: SweepConfig, infosam_home: object) -> None:
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["sweep", "default", "data=nowhere", "--dry-run"])
    assert isinstance(result.exception, UserError)
    assert "nowhere" in str(result.exception)
