"""What decides about the router, and the arithmetic of its figures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from routing import refuse_other_than_chosen
from routing_choice import BEFORE, CANDIDATES, DEFAULT, TIE, Candidate, choose, log_volume, shortfall
from routing_figures import gap, left_out, wilson
from routing_masks import Shown

from infosam.routing.scorers import Mahalanobis, shrunk

GOOD = {"accuracy": 0.99, "disturbed": 0.97, "false_accept": 0.05, "false_accept_at_95": 0.05}


class TestChoice:
    def test_the_largest_of_what_is_missing_counts(self) -> None:
        assert shortfall(GOOD) == pytest.approx(0)
        assert shortfall(GOOD | {"accuracy": 0.9, "false_accept": 0.3}) == pytest.approx(0.25)

    def test_of_about_equal_ones_that_which_misses_least_in_all(self) -> None:
        one, other = Candidate(taps=(2, 3)), Candidate(taps=(1,))
        poor = GOOD | {"accuracy": 0.4}
        figures = {each.name: poor | {"shortfall": shortfall(poor)} for each in CANDIDATES}

        def found(**misses: float) -> dict[str, float]:
            values = GOOD | misses
            return values | {"shortfall": shortfall(values)}

        one_miss, two_misses = found(accuracy=0.88), found(accuracy=0.88 + TIE / 2, disturbed=0.87)
        assert two_misses["shortfall"] < one_miss["shortfall"]
        assert choose(figures | {one.name: one_miss, other.name: two_misses}) == one.name
        clearly = found(accuracy=0.88 + 2 * TIE, disturbed=0.95 - TIE)
        assert choose(figures | {one.name: one_miss, other.name: clearly}) == other.name

    def test_names_are_told_apart_and_the_default_is_one_of_them(self) -> None:
        names = [one.name for one in CANDIDATES]
        assert len(set(names)) == len(names)
        assert DEFAULT.name in names

    def test_volume_is_the_determinant_of_the_covariance(self) -> None:
        generator = torch.Generator().manual_seed(0)
        features = F.normalize(torch.randn(60, 12, generator=generator).double(), dim=1)
        _, variances, directions, rest = shrunk(features)
        covariance = directions.T @ torch.diag(variances - rest) @ directions + rest * torch.eye(12)
        found = log_volume(Mahalanobis().fit(features, features))
        assert float(found) == pytest.approx(float(covariance.logdet()), rel=1e-3)

    def test_test_is_not_scored_with_anything_else(self, tmp_path: Path) -> None:
        arguments = argparse.Namespace(out=tmp_path, quick=False)
        with pytest.raises(SystemExit, match="run --stage choose first"):
            refuse_other_than_chosen(arguments, {})
        for day, name in (("2026-01-01", DEFAULT.name), ("2026-01-02", BEFORE.name)):
            content = {"figures": {"chosen": name}}
            (tmp_path / f"{day}-routing-choice.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(SystemExit, match="change FeatureConfig"):
            refuse_other_than_chosen(arguments, {})
        refuse_other_than_chosen(arguments, {"chosen": DEFAULT.name})


@pytest.mark.parametrize("how", ["half_size", "crop_70", "aspect_70", "border_10"])
def test_a_mask_is_disturbed_with_its_image(how: str) -> None:
    truth = np.zeros((80, 120), bool)
    truth[20:60, 30:100] = True
    found = Shown("a", np.repeat(truth[..., None], 3, axis=2).astype(np.uint8) * 255, truth).disturbed(how, row=5)
    assert found.truth.shape == found.rgb.shape[:2]
    assert (found.truth == (found.rgb[..., 0] > 127)).mean() > 0.99


class FixedDice:
    """Dice 0.5 by frozen SAM and 0.1 by any adapter."""

    def dice(self, domains, rows):
        return np.array([0.5 if domain is None else 0.1 for domain in domains])


def test_a_domain_is_left_out_of_the_pool_it_is_asked_in() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    images = [Shown(name, picture, picture[..., 0] > 0) for name in "aab"]
    distances = np.array([[0.1, 0.9], [0.1, 5.0], [2.0, 0.1]])
    found = left_out(distances, ["a", "b"], images, FixedDice())
    assert found.takers == ["b", "b", "a"]
    assert found.accepted == [True, False, False]
    assert found.lost[0] == pytest.approx(0.4)
    assert found.lost[1:] == [0, 0]


def test_intervals() -> None:
    assert wilson([True] * 119 + [False] * 3) == pytest.approx([0.930, 0.992], abs=1e-3)
    images = [Shown(name, np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)) for name in "aaab"]
    mean, low, high = gap(np.array([0.2, 0.2, 0.2, 0.8]), np.zeros(4), images)
    assert mean == pytest.approx(0.5)
    assert low <= mean <= high
