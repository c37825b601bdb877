"""Which domain an image goes to, and when to none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from infosam.data.transforms import prepare_image, resized_hw
from infosam.routing.disturbances import copies
from infosam.routing.features import FeatureConfig
from infosam.routing.fitting import TrainingPictures, encode_pictures, statistics_of
from infosam.routing.pool import AdapterPool
from infosam.routing.router import Route, Router
from infosam.routing.statistics import DomainStatistics
from infosam.sam.encoder import FrozenPass
from infosam.sam.weights import BaseSam
from infosam.training import Materials

Pictures = list[tuple[str, NDArray[np.uint8]]]


@pytest.fixture
def known(domains: dict[str, Materials]) -> dict[str, DomainStatistics]:
    return {name: of.routing for name, of in domains.items() if of.routing is not None}


def routes(base: BaseSam, known: dict[str, DomainStatistics], pictures: list[NDArray[np.uint8]]) -> list[Route]:
    canvas = torch.stack([prepare_image(picture, 64) for picture in pictures])
    with torch.no_grad():
        frozen = FrozenPass(base.sam.image_encoder, canvas)
        return Router(known, 8).routes(frozen, [resized_hw(*picture.shape[:2], 64) for picture in pictures])


def test_each_image_to_its_domain(tiny_base: BaseSam, known, unseen: Pictures) -> None:
    for (name, _), route in zip(unseen, routes(tiny_base, known, [rgb for _, rgb in unseen]), strict=True):
        assert route.domain == name
        assert route.score is not None
        assert route.threshold == known[name].card.threshold
        assert route.score <= route.threshold
        assert f"of the distance that {name} allows" in route.reason


def test_an_image_of_a_domain_that_is_not_there(tiny_base: BaseSam, known, unseen: Pictures) -> None:
    del known["violet"]
    for route in routes(tiny_base, known, [rgb for name, rgb in unseen if name == "violet"]):
        assert route.domain is None
        assert route.score > route.threshold
        assert route.reason.startswith("like no domain here: nearest is ")


def test_the_distance_counts_relative_to_what_a_domain_allows(tiny_base: BaseSam, known, unseen) -> None:
    """With a threshold large enough a domain takes everything, however near another one is."""
    wide = replace(known["violet"], card=known["violet"].card.model_copy(update={"threshold": 1e6}))
    (route,) = routes(tiny_base, known | {"violet": wide}, [unseen[0][1]])
    assert route.domain == "violet"


def test_domains_may_look_elsewhere(tiny_base: BaseSam, known, domains, unseen) -> None:
    """Statistics of another version may have been made of other taps; they are compared all the same."""
    config, of = FeatureConfig(taps=(4,), spread=False, ring=False), domains["negative"]
    pictures = TrainingPictures.choose(of.train_set)
    seen = encode_pictures(of.base, pictures, torch.device("cpu"), config)
    other = statistics_of(pictures, seen, seen, config=config, scorer="neighbours", canvas_px=64)
    found = routes(tiny_base, known | {"negative": other}, [rgb for _, rgb in unseen])
    assert [route.domain for route in found] == [name for name, _ in unseen]


def test_nothing_to_choose_among(tiny_base: BaseSam) -> None:
    assert (
        routes(tiny_base, {}, [np.zeros((9, 9, 3), np.uint8)] * 2)
        == [Route(None, None, None, "no domain here has statistics to be chosen by")] * 2
    )


@pytest.fixture(scope="module")
def pool(routed: dict[str, Path]) -> AdapterPool:
    """Read only."""
    return AdapterPool.from_folders(routed, device="cpu")


class TestInThePool:
    def test_by_default_each_image_finds_its_adapter(self, pool: AdapterPool, unseen: Pictures) -> None:
        images, names = [rgb for _, rgb in unseen], [name for name, _ in unseen]
        found = pool.predict_batch(images)
        assert [one.domain for one in found] == names
        for one, by_name in zip(found, pool.predict_batch(images, None, names), strict=True):
            assert (one.mask == by_name.mask).all()

    def test_disturbed_copies_find_it_too(self, pool: AdapterPool, unseen: Pictures) -> None:
        rng = np.random.default_rng(5)
        found = [(name, one.domain) for name, rgb in unseen[::4] for one in pool.predict_batch(copies(rgb, rng))]
        assert all(domain in (name, None) for name, domain in found)
        assert sum(domain == name for name, domain in found) >= 0.8 * len(found), "abstaining is no answer"

    def test_noise_is_of_no_domain_and_gets_plain_sam(self, pool: AdapterPool, tiny_base: BaseSam) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        auto, plain = pool.predict_batch([noise, noise], None, ["auto", None])
        assert auto.domain is None
        assert "like no domain here" in auto.reason
        assert (auto.mask == plain.mask).all()

    def test_domains_without_statistics_are_never_chosen(self, routed, make_bundle, unseen: Pictures) -> None:
        from infosam.peft.config import LoraConfig

        pool = AdapterPool.from_folders({**routed, "old": make_bundle(LoraConfig(rank=2))}, device="cpu")
        assert pool.routable() == ("negative", "spores", "violet")
        assert pool.domains() == ("negative", "old", "spores", "violet")
        pool.remove("spores")
        (found,) = pool.predict_batch([unseen[0][1]])
        assert found.domain is None

    def test_a_pool_grows_and_shrinks_one_by_one(self, routed, tiny_base: BaseSam, unseen: Pictures) -> None:
        """What an image scores for a domain does not depend on the others."""
        pool, rgb = AdapterPool(tiny_base, device="cpu"), unseen[0][1]
        (none,) = pool.predict_batch([rgb])
        assert (none.domain, none.score) == (None, None)
        pool.add("spores", routed["spores"])
        (alone,) = pool.predict_batch([rgb])
        pool.add("violet", routed["violet"])
        (beside,) = pool.predict_batch([rgb])
        assert (alone.domain, alone.score) == (beside.domain, beside.score) == ("spores", alone.score)
