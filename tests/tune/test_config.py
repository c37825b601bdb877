"""The sweep file: shipped examples, defaults, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from infosam.config import RunConfig
from infosam.errors import ConfigError
from tune.cli import shipped
from tune.config import SweepConfig, load_sweep_config, parse_sweep_config
from tune.config.search import PAIRS, Sampler, Scheduler
from tune.space import KINDS


def parse(settings: dict[str, Any] | None = None, *overrides: str) -> SweepConfig:
    return parse_sweep_config({"data": "somewhere", **(settings or {})}, list(overrides), source="sweep.yaml")


@pytest.mark.parametrize("name", ["default", "demo"])
def test_shipped_sweeps_are_valid(name: str) -> None:
    config = load_sweep_config(shipped(name))
    assert config.search.points


def test_the_default_file_shows_every_key_with_its_default() -> None:
    written = yaml.safe_load(shipped("default").read_text())
    config = load_sweep_config(shipped("default"), ["search.points=[]"])
    assert config == parse({"data": written["data"]})
    plain = config.model_dump(mode="json")
    commented = {"name", "domain"}
    assert set(written) == set(plain) - commented
    for section in ("search", "scheduler", "constraints", "budget", "final", "resources", "tracking"):
        assert set(written[section]) == set(plain[section])
    for group in ("model", "info", "loss", "optim", "prompts", "augment", "train", "cache"):
        assert set(written["run"][group]) == set(plain["run"][group])


def test_every_key_is_documented() -> None:
    sections = [field.annotation for field in SweepConfig.model_fields.values()]
    models = [SweepConfig, *KINDS.values()]
    models += [one for one in sections if isinstance(one, type) and issubclass(one, BaseModel) and one is not RunConfig]
    undocumented = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert undocumented == []


def test_the_configuration_survives_its_own_yaml() -> None:
    config = load_sweep_config(shipped("default"))
    again = parse_sweep_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))), [], source="again")
    assert again == config


def test_overrides_reach_run_search_and_paths_of_the_space() -> None:
    config = parse(
        None, "search.trials=3", "run.train.epochs=7", "run.optim.lr=1e-3", "space.optim.lr={log_uniform: [1e-5, 1e-4]}"
    )
    assert (config.search.trials, config.run.train.epochs, config.run.optim.lr) == (3, 7, 1e-3)
    assert config.space["optim.lr"].corners() == [1e-5, 1e-4]
    assert "peft.kind" in config.space


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"serach": {}}, "did you mean 'search'"),
        ({"search": {"trails": 3}}, "search.trails: unknown setting; did you mean 'trials'"),
        ({"run": {"optim": {"lrr": 1}}}, "run.optim.lrr: unknown setting; did you mean 'lr'"),
        ({"run": {"peft": {"kind": "lora", "rnk": 2}}}, "did you mean 'rank'"),
        ({"search": {"trials": 0}}, "search.trials"),
        ({"space": {"optim.lr": {"log_uniform": [0.1, 3]}}}, "optim.lr=3.0"),
        ({"space": {"optim.lr": {"log_unifrom": [0.1, 3]}}}, "did you mean 'log_uniform'"),
        ({"search": {"points": [{"optim.lr": 1e-3}, {"optim.lr": 3}]}}, "points[1]: optim.lr: 3 is outside"),
        ({"resources": {"workers_per_trial": 3}}, "batch_size = 4 must be a multiple of 3"),
        ({"resources": {"slots": 0}}, "must be >= 1 or auto"),
        ({"resources": {"mirror": "s3://me:pw@bucket/x"}}, "resources.mirror: must not hold a key"),
        ({"resources": {"fetch": {"x": "s3://me:pw@bucket/x"}}}, "resources.fetch: must not hold a key"),
        ({"resources": {"gpus_per_worker": 1.5}}, "gpus_per_worker: must be a fraction of one GPU or a whole number"),
        ({"scheduler": {"grace_epochs": 0}}, "scheduler.grace_epochs"),
        ({"run": {"train": {"device": "cuda"}}}, "resources.gpus_per_worker is 0"),
        ({"name": "../elsewhere"}, "name"),
        ({"scheduler": {"kind": "pbt"}}, "scheduler.kind: pbt: population-based training is not offered: it pauses"),
        ({"scheduler": {"kind": "HyperBand"}}, "synchronous HyperBand is not offered"),
        ({"search": {"sampler": "gp"}}, "search.sampler=gp with scheduler.kind=asha: it learns from finished trials"),
        ({"search": {"sampler": "gp"}, "scheduler": {"kind": "none", "plateau_epochs": 2}}, "plateau_epochs=2"),
        ({"search": {"sampler": "nsga2"}}, "sampler=nsga2 and against belong together"),
        ({"search": {"against": "adapter_mb"}}, "sampler=nsga2 and against belong together"),
        ({"search": {"storage": "rdb", "url": "postgresql://me:pw@host/x"}}, "must not hold a password"),
        ({"search": {"url": "sqlite:///x"}}, "url has no effect with storage=journal"),
        ({"budget": {"gpu_hours": 2}}, "budget.gpu_hours is 2 but resources.gpus_per_worker is 0"),
        ({"budget": {"target": 1.5}}, "budget.target"),
        ({"warm_start": "sometimes"}, "warm_start"),
    ],
)
def test_a_bad_sweep_is_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(settings)
    assert words in str(caught.value)
    assert "me:pw" not in str(caught.value)


def test_several_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"search": {"trails": 3}, "scheduler": {"kind": "pbt"}})
    assert "trails" in str(caught.value)
    assert "scheduler.kind" in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_sweep_config(Path("nowhere.yaml"))


def test_points_written_with_an_exponent_are_numbers() -> None:
    assert parse({"search": {"points": [{"optim.lr": "1e-3"}]}}).search.points == [{"optim.lr": 1e-3}]


@pytest.mark.parametrize("sampler", PAIRS)
@pytest.mark.parametrize("kind", ["none", "asha", "median"])
def test_samplers_and_schedulers_go_together_as_the_table_says(sampler: Sampler, kind: Scheduler) -> None:
    search = {"sampler": sampler, "against": "epoch_seconds" if sampler == "nsga2" else None}
    settings = {"search": search, "scheduler": {"kind": kind}}
    if kind in PAIRS[sampler]:
        parse(settings)
    else:
        with pytest.raises(ConfigError, match=r"search\.force=true"):
            parse(settings)
    parse({**settings, "search": {**search, "force": True}})


def test_off_is_off_although_yaml_reads_it_as_false() -> None:
    assert parse(None, "warm_start=off").warm_start == "off"
    assert parse(None, "warm_start=[polyp-2]").warm_start == ["polyp-2"]
