"""A pool follows the registry: promotions, rollbacks, broken bundles, a registry that is away."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infosam.bundle import read_bundle
from infosam.errors import BundleError, UnknownDomain
from tune.champions.following import ChampionFollower
from tune.champions.lookup import resolve
from tune.champions.promotion import Challenger, Rescore, promote, rollback
from tune.champions.registry import CHAMPION, open_registry

Offer = Callable[..., Challenger]


class Recorder:
    """A pool that opens bundles and notes what it holds."""

    def __init__(self) -> None:
        self.held: dict[str, str | None] = {}
        self.added = threading.Event()

    def add(self, domain: str, bundle: Path, version: str | None = None) -> None:
        read_bundle(bundle)
        self.held[domain] = version
        self.added.set()

    def remove(self, domain: str) -> None:
        if domain not in self.held:
            raise UnknownDomain(domain)
        del self.held[domain]


@pytest.fixture
def pool() -> Recorder:
    return Recorder()


@pytest.fixture
def follower(store: str, pool: Recorder) -> ChampionFollower:
    return ChampionFollower(pool, uri=store, every_s=0.05)


def test_without_a_store_there_is_nothing_and_none_is_made(
    follower: ChampionFollower, pool: Recorder, home: object
) -> None:
    assert follower.look() == []
    assert pool.held == {}


def test_promotions_and_rollbacks_arrive(
    store: str, offer: Offer, rescore: Rescore, follower: ChampionFollower, pool: Recorder
) -> None:
    promote(store, offer(0.8), rescore)
    assert follower.look() == ["polyp: version 1 is in use"]
    promote(store, offer(0.9), rescore)
    promote(store, dataclasses.replace(offer(0.85), domain="road"), rescore)
    assert sorted(follower.look()) == ["polyp: version 2 is in use", "road: version 1 is in use"]
    assert pool.held == {"polyp": "2", "road": "1"}
    assert follower.look() == []
    with open_registry(store) as registry:
        rollback(registry, "polyp")
    follower.look()
    assert pool.held == {"polyp": "1", "road": "1"}


def test_a_refused_challenger_changes_nothing(
    store: str, offer: Offer, rescore: Rescore, follower: ChampionFollower, pool: Recorder
) -> None:
    promote(store, offer(0.9), rescore)
    follower.look()
    promote(store, offer(0.8), rescore)
    assert follower.look() == []
    assert pool.held == {"polyp": "1"}


def test_a_broken_champion_leaves_the_one_before_and_the_others(
    store: str,
    offer: Offer,
    rescore: Rescore,
    follower: ChampionFollower,
    pool: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    promote(store, offer(0.8), rescore)
    follower.look()
    promote(store, offer(0.9), rescore)
    promote(store, dataclasses.replace(offer(0.85), domain="road"), rescore)
    bundle = resolve("polyp")
    assert bundle is not None
    weights = (bundle / "rest.safetensors").read_bytes()
    (bundle / "rest.safetensors").write_bytes(b"torn")
    follower.look()
    follower.look()
    assert pool.held == {"polyp": "1", "road": "1"}
    standing = follower.standings["polyp"]
    assert standing.version == "1"
    assert standing.problem is not None
    assert "version 2 cannot be used" in standing.problem
    assert len([record for record in caplog.records if "cannot be used" in record.message]) == 1
    (bundle / "rest.safetensors").write_bytes(weights)
    follower.look()
    assert pool.held["polyp"] == "2"
    assert follower.standings["polyp"].problem is None


def test_a_domain_without_champion_goes(
    store: str, offer: Offer, rescore: Rescore, follower: ChampionFollower, pool: Recorder
) -> None:
    promote(store, offer(0.8), rescore)
    follower.look()
    with open_registry(store) as registry:
        registry.client.delete_registered_model_alias("infosam-polyp", CHAMPION)
    follower.look()
    assert pool.held == {}


def test_a_registry_that_is_away_changes_nothing(pool: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    pool.held["polyp"] = "4"
    follower = ChampionFollower(pool, uri="http://127.0.0.1:9", every_s=1)
    assert follower.look() == []
    assert follower.look() == []
    assert follower.trouble is not None
    assert pool.held == {"polyp": "4"}
    assert len([record for record in caplog.records if "looked up" in record.message]) == 1


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_looks_again_by_itself_whatever_happens(
    store: str,
    offer: Offer,
    rescore: Rescore,
    follower: ChampionFollower,
    pool: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = threading.Event()

    def fail(domain: str, bundle: Path, version: str | None = None) -> None:
        failed.set()
        raise RuntimeError("no memory")

    monkeypatch.setattr(pool, "add", fail)
    promote(store, offer(0.8), rescore)
    follower.start()
    try:
        assert failed.wait(60)
        monkeypatch.undo()
        assert pool.added.wait(60)
    finally:
        follower.stop()
    assert pool.held == {"polyp": "1"}


def test_a_bundle_that_does_not_fit_is_a_problem_of_its_domain(
    store: str,
    offer: Offer,
    rescore: Rescore,
    follower: ChampionFollower,
    pool: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(domain: str, bundle: Path, version: str | None = None) -> None:
        raise BundleError("trained on another base")

    monkeypatch.setattr(pool, "add", refuse)
    promote(store, offer(0.8), rescore)
    assert follower.look() == []
    standing = follower.standings["polyp"]
    assert (standing.version, standing.problem) == (None, "version 1 cannot be used: trained on another base")
