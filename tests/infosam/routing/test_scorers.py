"""What every scorer keeps, and what is special to each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from infosam.routing.scorers import (
    SCORERS,
    Mahalanobis,
    NearestNeighbours,
    RelativeMahalanobis,
    Scorer,
    Statistics,
    shrunk,
)

WIDTH = 24


def cloud(centre: int, count: int, *, spread: float = 0.05, seed: int = 0) -> Tensor:
    """Features of unit length around a direction of their own."""
    around = F.one_hot(torch.tensor(centre), WIDTH) + spread * torch.randn(
        count, WIDTH, generator=torch.Generator().manual_seed(seed)
    )
    return F.normalize(around, dim=1)


@pytest.fixture
def background() -> Tensor:
    return F.normalize(torch.randn(80, WIDTH, generator=torch.Generator().manual_seed(9)), dim=1)


def score(scorer: Scorer, features: Tensor, known: Statistics) -> Tensor:
    """(B, F) -> (B,) for one domain."""
    return scorer.score(features, scorer.stack([known]))[:, 0]


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
class TestContract:
    def test_many_domains_at_once_are_each_alone(self, scorer: Scorer, background: Tensor) -> None:
        """Also where their numbers of images differ."""
        known = [scorer.fit(cloud(number, count), background) for number, count in enumerate((2, 9, 40))]
        asked = cloud(1, 5, seed=4)
        found = scorer.score(asked, scorer.stack(known))
        assert found.shape == (5, 3)
        torch.testing.assert_close(found, torch.stack([score(scorer, asked, one) for one in known], dim=1))

    def test_what_is_far_scores_higher(self, scorer: Scorer, background: Tensor) -> None:
        known = scorer.fit(cloud(0, 40), background)
        own, other = score(scorer, cloud(0, 20, seed=1), known), score(scorer, cloud(5, 20, seed=2), known)
        assert own.shape == (20,)
        assert own.dtype == torch.float32
        assert (own >= 0).all()
        assert own.max() < other.min()

    def test_each_image_alone(self, scorer: Scorer, background: Tensor) -> None:
        known, asked = scorer.fit(cloud(0, 40), background), cloud(0, 6, seed=3)
        one_by_one = torch.cat([score(scorer, row[None], known) for row in asked])
        torch.testing.assert_close(score(scorer, asked, known), one_by_one)

    def test_statistics_are_plain_tensors_of_the_domain_alone(self, scorer: Scorer, background: Tensor) -> None:
        first, again = scorer.fit(cloud(0, 40), background), scorer.fit(cloud(0, 40), background)
        scorer.fit(cloud(3, 40), background)
        for name, tensor in first.items():
            assert tensor.dtype == torch.float32
            assert tensor.is_contiguous()
            assert torch.equal(tensor, again[name])

    def test_two_images_or_equal_images_are_enough(self, scorer: Scorer, background: Tensor) -> None:
        for features in (cloud(0, 2), cloud(0, 1).expand(5, WIDTH)):
            known = scorer.fit(features, background)
            assert score(scorer, cloud(0, 4, seed=1), known).isfinite().all()
            assert score(scorer, features, known).max() < score(scorer, cloud(5, 4), known).min()


class TestMahalanobis:
    def test_it_is_the_distance_under_the_shrunk_covariance(self, background: Tensor) -> None:
        features, asked = cloud(0, 60).double(), cloud(2, 5, seed=1)
        mean, variances, directions, rest = shrunk(features)
        covariance = directions.T @ torch.diag(variances - rest) @ directions + rest * torch.eye(WIDTH)
        centred = asked.double() - mean
        expected = ((centred @ covariance.inverse()) * centred).sum(dim=1).div(WIDTH).sqrt()
        found = score(Mahalanobis(), asked, Mahalanobis().fit(features, background))
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=0)

    def test_inside_it_is_about_one(self, background: Tensor) -> None:
        known = Mahalanobis().fit(cloud(0, 400), background)
        assert score(Mahalanobis(), cloud(0, 200, seed=1), known).mean() == pytest.approx(1, abs=0.1)


class TestShrinkage:
    """Ledoit and Wolf's estimate, against scikit-learn's where that is installed."""

    @pytest.mark.parametrize("count", [5, 30, 400])
    def test_against_the_library(self, count: int) -> None:
        covariance = pytest.importorskip("sklearn.covariance", reason="scikit-learn is not installed")
        features = cloud(0, count, spread=0.3).double()
        _, variances, directions, rest = shrunk(features)
        ours = directions.T @ torch.diag(variances - rest) @ directions + rest * torch.eye(WIDTH)
        theirs = covariance.LedoitWolf().fit(features.numpy()).covariance_
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-3, atol=1e-8)

    def test_without_groups_is_each_image_its_own(self) -> None:
        features = cloud(0, 30, spread=0.3).double()
        for alone, named in zip(shrunk(features), shrunk(features, torch.arange(30)), strict=True):
            torch.testing.assert_close(alone, named)

    def test_a_copy_tells_nothing_new(self) -> None:
        """Ten times the same images are the same images; counted as others they would hardly be shrunk."""
        features = cloud(0, 12, spread=0.3).double()
        again, groups = features.repeat_interleave(10, dim=0), torch.arange(12).repeat_interleave(10)
        once, taught, fooled = shrunk(features)[3], shrunk(again, groups)[3], shrunk(again)[3]
        torch.testing.assert_close(taught, once)
        assert fooled < 0.3 * once

    def test_many_images_need_none(self) -> None:
        scales = torch.linspace(1, 3, WIDTH).double()
        features = scales * torch.randn(20_000, WIDTH, generator=torch.Generator().manual_seed(0)).double()
        _, variances, _, rest = shrunk(features)
        assert variances.max() == pytest.approx(9, rel=0.05)
        assert rest < 0.05 * features.var()


def test_relative_takes_off_what_is_far_from_everything(background: Tensor) -> None:
    """The same distance to the domain counts less where images at large lie as far away themselves."""
    scorer = RelativeMahalanobis()
    known = scorer.fit(cloud(0, 40), background)
    plain = {name: tensor for name, tensor in known.items() if not name.startswith("background.")}
    other = scorer.fit(cloud(0, 40), cloud(7, 80))
    own = {name: tensor for name, tensor in other.items() if not name.startswith("background.")}
    assert all(torch.equal(plain[name], own[name]) for name in plain)
    asked = cloud(5, 10, spread=0.3)
    assert (score(scorer, asked, other) <= score(scorer, asked, known)).all()


def test_neighbours_measure_to_the_kth(background: Tensor) -> None:
    features = cloud(0, 10)
    scorer = NearestNeighbours(k=2)
    found = score(scorer, features[:1], scorer.fit(features, background))
    assert found.item() == pytest.approx((features[1:] - features[0]).norm(dim=1).min().item())
