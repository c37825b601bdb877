"""`infosam cluster plan` against sums done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from cluster.cli import register
from cluster.estimate import MachinePrice, TargetPrices, estimate, read_prices
from cluster.templates import TARGETS
from infosam.errors import ConfigError, UserError
from tune.config import SweepConfig, parse_sweep_config

PRICES = TargetPrices(
    head=MachinePrice(kind="small", low=0.1, high=0.2), worker=MachinePrice(kind="large", gpus=1, low=1.0, high=3.0)
)


def config(**overrides: Any) -> SweepConfig:
    plain = [
        "search.trials=8",
        "run.train.epochs=10",
        "scheduler.kind=none",
        "resources.gpus_per_worker=1",
        "resources.slots=4",
    ]
    return parse_sweep_config({"data": "d"}, [*plain, *(f"{k.replace('__', '.')}={v}" for k, v in overrides.items())],
                              source="test")  # fmt: skip


def test_time_and_price_are_the_sums() -> None:
    found = estimate([config()], PRICES, epoch_s=360, workers=None, target="cloud")
    assert (found.workers, found.slots, found.trials) == (4, 4, 8)
    assert found.work_s == (8 * 3600, 8 * 3600)  # an hour each
    hours = 2 + 1 / 6  # two after the other, and ten minutes to start
    assert found.wall_s == pytest.approx((hours * 3600, hours * 3600))
    assert found.price == pytest.approx((hours * 4.1, hours * 12.2))
    assert found.gpu_hours == pytest.approx((4 * hours, 4 * hours))


def test_early_stopping_makes_a_range() -> None:
    found = estimate([config(scheduler__kind="asha")], PRICES, epoch_s=360, workers=2, target="cloud")
    assert found.work_s[0] < found.work_s[1] == 8 * 3600
    assert found.price[0] < found.price[1]
    assert found.slots == 2


def test_fractions_share_a_gpu_and_large_trials_take_several_machines() -> None:
    half = estimate([config(resources__gpus_per_worker=0.5)], PRICES, epoch_s=1, workers=None, target="x")
    assert (half.workers, half.slots) == (2, 4)
    double = estimate([config(resources__workers_per_trial=2)], PRICES, epoch_s=1, workers=None, target="x")
    assert (double.workers, double.slots) == (8, 4)


def test_several_domains_add_up() -> None:
    found = estimate([config(), config()], PRICES, epoch_s=360, workers=None, target="x")
    assert found.trials == 16
    assert found.work_s[1] == 16 * 3600


@pytest.mark.parametrize("target", TARGETS)
def test_shipped_prices_cover_the_targets(target: str) -> None:
    prices = read_prices(None, target)
    assert prices.worker.gpus == 1
    text = (Path(__file__).parents[2] / "cluster" / TARGETS[target].file).read_text()
    if target != "onprem":
        assert prices.worker.kind in text
        assert prices.head.kind in text


def test_a_user_brings_prices(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(yaml.safe_dump({"lab": {"head": {"kind": "a", "low": 0, "high": 1},
                                             "worker": {"kind": "b", "gpus": 2, "low": 1, "high": 2}}}))  # fmt: skip
    assert read_prices(table, "lab").worker.gpus == 2
    with pytest.raises(UserError, match="no prices of 'aws', only of lab"):
        read_prices(table, "aws")
    table.write_text(yaml.safe_dump({"lab": {"head": {"kind": "a", "low": 3, "high": 1}, "worker": {"kind": "b"}}}))
    with pytest.raises(ConfigError, match="high must be at least low"):
        read_prices(table, "lab")


def test_a_worker_without_gpu_is_refused() -> None:
    bare = PRICES.model_copy(update={"worker": MachinePrice(kind="cpu", low=0, high=1)})
    with pytest.raises(UserError, match="has none"):
        estimate([config()], bare, epoch_s=1, workers=1, target="x")


def test_the_command_prints_the_plan(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("data: d\n")
    app = typer.Typer()
    register(app)
    result = CliRunner().invoke(app, ["cluster", "plan", str(file), "--epoch-seconds", "40", "search.trials=32"])
    assert result.exit_code == 0, result.output
    assert "g6.2xlarge" in result.output
    assert "32, 32 at a time" in result.output
