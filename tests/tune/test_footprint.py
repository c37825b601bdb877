"""Sizes of adapters against counts done by hand, and bounds nothing can keep."""

from __future__ import annotations

from typing import Any

import pytest

from infosam.config import RunConfig
from infosam.errors import ConfigError
from tune.config import ConstraintConfig, SweepConfig, parse_sweep_config
from tune.footprint import Footprint, check_constraints

WIDTH, DEPTH = 128, 6  # of vit_nano


def footprint(**bounds: float) -> Footprint:
    return Footprint(RunConfig(), ConstraintConfig.model_validate(bounds))


def parse(**settings: Any) -> SweepConfig:
    return parse_sweep_config({"data": "somewhere", **settings}, [], source="test")


def test_sizes_are_those_of_the_trained_parameters() -> None:
    sizes = footprint().sizes({"peft.kind": "lora", "peft.rank": 8})
    # LoRA on qkv of every block: (width x rank + rank x 3 width) float32, in 10^6 bytes
    assert sizes["adapter_mb"] == pytest.approx(DEPTH * 8 * (WIDTH + 3 * WIDTH) * 4 / 1e6)
    decoder = footprint().sizes({"peft.kind": "decoder"})
    assert decoder["adapter_mb"] == 0
    assert sizes["trained_mb"] == pytest.approx(sizes["adapter_mb"] + decoder["trained_mb"])


def test_excess_is_size_minus_bound() -> None:
    point = {"peft.kind": "lora", "peft.rank": 4}
    size = footprint().sizes(point)["adapter_mb"]
    assert footprint(adapter_mb=size).allows(point)
    assert footprint(adapter_mb=1.0).excess(point) == {"adapter_mb": size - 1.0}
    assert not footprint(adapter_mb=size * 0.99).allows(point)
    assert footprint().excess(point) == {}


def test_a_bound_that_nothing_keeps_is_refused() -> None:
    with pytest.raises(ConfigError, match="no configuration of the space keeps them; of the smallest, adapter_mb is"):
        check_constraints(parse(constraints={"adapter_mb": 1e-4}))


def test_a_point_that_cannot_keep_a_bound_is_refused() -> None:
    bounds = {"adapter_mb": footprint().sizes({"peft.kind": "lora", "peft.rank": 8})["adapter_mb"]}
    points = [{"peft.kind": "lora", "peft.rank": 8}, {"peft.kind": "lora"}, {"peft.kind": "lora", "peft.rank": 9}]
    check_constraints(parse(constraints=bounds, search={"points": points[:2]}))
    with pytest.raises(ConfigError, match=r"search.points\[2\] cannot keep them: adapter_mb"):
        check_constraints(parse(constraints=bounds, search={"points": points}))
    check_constraints(parse(search={"points": points}))
