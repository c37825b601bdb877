"""What every metric promises, whatever it measures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infosam import metrics
from infosam.metrics import METRICS

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]
ON_MASKS: dict[str, Callable[[Mask, Mask], float]] = {
    "dice": lambda mask, truth: metrics.dice(torch.from_numpy(mask), torch.from_numpy(truth)),
    "iou": lambda mask, truth: metrics.iou(torch.from_numpy(mask), torch.from_numpy(truth)),
    "ber": metrics.ber,
    "boundary_f": metrics.boundary_f,
}
ON_MAPS: dict[str, Callable[[Map, Mask], float]] = {
    "s_measure": metrics.s_measure,
    "e_adaptive": lambda probability, truth: metrics.e_measure(probability, truth).adaptive,
    "e_mean": lambda probability, truth: metrics.e_measure(probability, truth).mean,
    "e_max": lambda probability, truth: metrics.e_measure(probability, truth).maximum,
    "weighted_f": metrics.weighted_f,
    "mae": metrics.mae,
}


def evaluate(name: str, probability: Map, truth: Mask) -> float:
    if METRICS[name].takes == "mask":
        return ON_MASKS[name](probability >= 0.5, truth)
    return ON_MAPS[name](probability, truth)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Map, Mask]:
    """A map, from noise to certain, and a truth, from empty to full."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = rng.random((height, width)) < draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
    probability = rng.random((height, width)) ** draw(st.sampled_from([0.3, 1.0, 4.0]))
    return (probability >= 0.5).astype(float) if draw(st.booleans()) else probability, truth


def test_the_table_names_every_metric_once() -> None:
    assert set(ON_MASKS) == {name for name, metric in METRICS.items() if metric.takes == "mask"}
    assert set(ON_MAPS) == {name for name, metric in METRICS.items() if metric.takes == "map"}
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_it_is_a_number_between_0_and_1(name: str, case: tuple[Map, Mask]) -> None:
    value = evaluate(name, *case)
    assert isinstance(value, float)
    assert -1e-9 <= value <= 1 + 1e-9


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_nothing_beats_the_truth_itself(name: str, case: tuple[Map, Mask]) -> None:
    probability, truth = case
    perfect, metric = evaluate(name, truth.astype(float), truth), METRICS[name]
    # A mean over all cuts includes the one at 0, which takes everything for foreground.
    assert perfect == pytest.approx(metric.best, abs=1 / 256 + 1e-9 if name == "e_mean" else 1e-9)
    if name != "e_mean":
        value = evaluate(name, probability, truth)
        assert value <= perfect + 1e-9 if metric.higher_is_better else value >= perfect - 1e-9


# The others cut or trace between a pixel and its right and lower neighbours, or take one of equally near pixels.
@pytest.mark.parametrize("name", ["dice", "iou", "ber", "mae", "e_adaptive", "e_mean", "e_max"])
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_a_picture_and_its_mirror_image_score_alike(name: str, case: tuple[Map, Mask]) -> None:
    probability, truth = case
    mirrored = evaluate(name, probability[:, ::-1].copy(), truth[:, ::-1].copy())
    assert mirrored == pytest.approx(evaluate(name, probability, truth), abs=1e-9)


@pytest.mark.parametrize("name", ["dice", "iou", "boundary_f", "mae"])
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_masks_may_change_places(name: str, case: tuple[Map, Mask]) -> None:
    found, truth = case[0] >= 0.5, case[1]
    assert evaluate(name, found.astype(float), truth) == pytest.approx(evaluate(name, truth.astype(float), found))


@pytest.mark.parametrize("name", ON_MAPS)
@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_logits_are_no_probabilities(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        ON_MAPS[name](np.array([[0.5, bad]]), np.array([[True, False]]))


@pytest.mark.parametrize("name", METRICS)
def test_other_shapes_are_refused_rather_than_broadcast(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\).*\(1, 4\)"):
        evaluate(name, np.ones((2, 4)), np.ones((1, 4), bool))


@pytest.mark.parametrize("name", ["ber", "boundary_f"])
def test_a_mask_is_bool(name: str) -> None:
    with pytest.raises(TypeError, match="a mask is bool, got float64"):
        ON_MASKS[name](np.ones((2, 2)), np.ones((2, 2), bool))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ON_MAPS)
def test_a_truth_is_bool(name: str) -> None:
    with pytest.raises(TypeError, match="the truth is a bool mask, got int64"):
        ON_MAPS[name](np.ones((2, 2)), np.ones((2, 2), int))  # type: ignore[arg-type]
