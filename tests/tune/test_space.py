"""Distributions, conditions, and the promise that what a space can draw can be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import pytest

from infosam.config import RunConfig
from infosam.errors import ConfigError
from tune.config import default_space
from tune.space import (
    Distribution,
    configured,
    encode,
    in_order,
    parse_distribution,
    point_problems,
    sample,
    space_problems,
)

CONDITIONAL = {
    "peft.rank": {"int_uniform": [2, 16], "when": {"peft.kind": "lora"}},
    "peft.width": {"int_uniform": [8, 64], "when": {"peft.kind": "adapter"}},
    "peft.kind": {"choice": ["lora", "adapter", "decoder"]},
}


def space_of(settings: Mapping[str, Any]) -> dict[str, Distribution]:
    return {path: parse_distribution(path, one) for path, one in settings.items()}


def draws(space: Mapping[str, Distribution], number: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [sample(space, study.ask()) for _ in range(number)]


def test_every_draw_of_the_default_space_is_a_run() -> None:
    for point in draws(default_space(), 50):
        run = configured(RunConfig(), point)
        assert run.optim.lr == point["optim.lr"]
        assert run.peft.kind == point["peft.kind"]


def test_conditional_settings_appear_only_with_their_kind() -> None:
    points = draws(space_of(CONDITIONAL), 60)
    assert {point["peft.kind"] for point in points} == {"lora", "adapter", "decoder"}
    expected = {"lora": "peft.rank", "adapter": "peft.width", "decoder": None}
    for point in points:
        assert set(point) - {"peft.kind"} == {expected[point["peft.kind"]]} - {None}


def test_a_condition_may_come_before_what_it_reads() -> None:
    assert in_order(space_of(CONDITIONAL))[0] == "peft.kind"


def test_log_uniform_or_zero_draws_both_and_nothing_below_its_range() -> None:
    space = space_of({"info.compression": {"log_uniform": [0.1, 10], "or_zero": True}})
    values = [point["info.compression"] for point in draws(space, 400)]
    zeros = values.count(0.0)
    assert all(value == 0 or 0.1 <= value <= 10 for value in values)
    assert 0.06 < zeros / len(values) < 0.2  # an eighth of the range


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({"log_uniform": [0.1, 10], "or_zero": True}, 0.0),
        ({"log_uniform": [0.1, 10]}, 0.5),
        ({"uniform": [0, 1]}, 0.25),
        ({"int_uniform": [2, 16], "log": True}, 4),
        ({"int_uniform": [2, 16], "step": 2}, 8),
        ({"choice": [None, 1, "a"]}, None),
        (
            {"choice": [{"box": 1, "point": 0, "none": 0}, {"box": 0, "point": 0, "none": 1}]},
            {"box": 0, "point": 0, "none": 1},
        ),
    ],
)
def test_an_encoded_point_is_drawn_again(settings: dict[str, Any], value: Any) -> None:
    space = space_of({"x": settings})
    study = optuna.create_study()
    study.enqueue_trial(encode(space, {"x": value}))
    assert sample(space, study.ask()) == {"x": value}


def test_a_group_of_settings_can_be_one_choice() -> None:
    shares = [{"box": 1.0, "point": 0.0, "none": 0.0}, {"box": 0.5, "point": 0.0, "none": 0.5}]
    space = space_of({"prompts": {"choice": shares}})
    assert space_problems(space, RunConfig()) == []
    run = configured(RunConfig.model_validate({"prompts": {"box_jitter": 0.2}}), {"prompts": shares[1]})
    assert (run.prompts.box, run.prompts.none, run.prompts.box_jitter) == (0.5, 0.5, 0.2)


def test_another_kind_keeps_only_settings_it_knows() -> None:
    base = RunConfig.model_validate({"peft": {"kind": "lora", "rank": 8, "first_block": 2}})
    run = configured(base, {"peft.width": 16, "peft.kind": "adapter"})
    assert run.peft.model_dump(exclude_defaults=True) == {"width": 16, "first_block": 2}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft.rnk": {"int_uniform": [1, 2]}}, "did you mean 'peft.rank'"),
        ({"peft.rank": {"int_uniform": [0, 8]}}, "peft.rank=0"),
        ({"peft.rank": {"int_uniform": [1, 800]}}, "peft.rank=800"),
        ({"optim.lr": {"log_uniform": [0.1, 3]}}, "optim.lr=3.0"),
        ({"model.name": {"choice": ["vit_nano"]}}, "share one frozen base"),
        ({"train.epochs": {"int_uniform": [1, 5]}}, "set run.train.epochs"),
        ({"prompts.box": {"uniform": [0.1, 0.9]}}, "must sum to 1"),
        ({"peft.rank": {"int_uniform": [1, 4], "when": {"peft.kind": "lora"}}}, "not a searched choice"),
        ({**CONDITIONAL, "peft.rank": {"int_uniform": [1, 4], "when": {"peft.kind": "lorra"}}}, "can never hold"),
        ({"peft.kind": {"choice": ["lora", "adapter"]}, "peft.rank": {"int_uniform": [1, 4]}}, "peft.kind=adapter"),
        ({"train.batch_size": {"choice": [1, 4]}}, "batch_size must be >= 2"),
    ],
)
def test_a_space_that_could_not_be_run_is_refused(settings: dict[str, Any], words: str) -> None:
    assert words in "; ".join(space_problems(space_of(settings), RunConfig()))


def test_conditions_in_a_circle_are_refused() -> None:
    space = space_of(
        {
            "peft.kind": {"choice": ["lora"], "when": {"loss.structure": "official"}},
            "loss.structure": {"choice": ["official"], "when": {"peft.kind": "lora"}},
        }
    )
    assert "depend on each other" in "; ".join(space_problems(space, RunConfig()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"uniform": [2, 1]}, "must be below"),
        ({"log_uniform": [0, 1]}, "or_zero"),
        ({"int_uniform": [1, 9], "log": True, "step": 2}, "needs step 1"),
        ({"int_uniform": [1, 9], "stp": 2}, "did you mean 'step'"),
        ({"unifrom": [1, 9]}, "did you mean 'uniform'"),
        ({"uniform": [1, 9], "choice": [1]}, "exactly one of"),
        ([1, 2], "exactly one of"),
        ({"choice": []}, "at least 1"),
    ],
)
def test_a_bad_distribution_is_refused_with_its_path(settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr.*") as caught:
        parse_distribution("optim.lr", settings)
    assert words in str(caught.value)


def test_numbers_written_with_an_exponent_are_numbers() -> None:
    assert parse_distribution("x", {"choice": ["1e-4", "lora"]}).corners() == [1e-4, "lora"]


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"peft.rnk": 4}, "not searched"),
        ({"peft.kind": "lora", "peft.rank": 17}, "outside int_uniform [2, 16]"),
        ({"peft.kind": "adapter", "peft.rank": 4}, "unmet"),
        ({"peft.kind": "lora", "peft.rank": 4.5}, "outside"),
    ],
)
def test_a_point_outside_the_space_is_refused(point: dict[str, Any], words: str) -> None:
    assert words in "; ".join(point_problems(point, space_of(CONDITIONAL), RunConfig()))


def test_a_point_may_leave_paths_to_the_sampler() -> None:
    assert point_problems({"peft.kind": "lora"}, space_of(CONDITIONAL), RunConfig()) == []
