from __future__ import annotations

import numpy as np
import pytest

from infosam.data.formats.arrays import Array
from infosam.data.formats.levels import levels_of, measured, to_8_bit


def stack(values: np.ndarray) -> Array:
    return Array(values, (1, 2, 3), colour=values.shape[-1] == 3)


def test_levels_are_percentiles_of_all_pictures_for_each_band() -> None:
    values = np.random.default_rng(0).normal(size=(5, 30, 40, 3)) * [1, 10, 100]
    expected = [tuple(np.percentile(values[..., band], [0.5, 99.5])) for band in range(3)]
    np.testing.assert_allclose(measured(stack(values)), expected)


def test_very_large_files_are_measured_on_evenly_spaced_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infosam.data.formats.levels.MAX_VALUES", 10_000)
    values = np.random.default_rng(0).normal(size=(500, 80, 100)).astype(np.float32)
    ((low, high),) = measured(stack(values))
    assert np.abs(np.array([low, high]) - np.percentile(values, [0.5, 99.5])).max() < 0.2


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_file_of_one_value_is_black(value: float) -> None:
    values = np.full((2, 4, 5), value, np.float32)
    assert not to_8_bit(values[0], levels_of(stack(values), None)).any()


def test_a_few_bright_spots_are_not_lost() -> None:
    values = np.zeros((2, 100, 100), np.int16)
    values[1, 3, 4] = 900
    assert to_8_bit(values[1], levels_of(stack(values), None))[3, 4] == 255


def test_a_window_goes_before_everything_and_cuts_off() -> None:
    values = np.array([[[-5, 0, 50, 100, 300]]], np.int16)
    shown = to_8_bit(values[0], levels_of(stack(values), (50.0, 100.0)))
    assert shown.tolist() == [[0, 0, 128, 255, 255]]


def test_true_and_false_are_white_and_black() -> None:
    values = np.array([[[True, False]]])
    assert to_8_bit(values[0], levels_of(stack(values), None)).tolist() == [[255, 0]]
