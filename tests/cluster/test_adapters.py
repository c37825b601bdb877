"""Which adapters a process holds, and what it says where it cannot have them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.adapters import Adapters, find_adapters
from cluster.serve.offers import check_offered, offers_of
from infosam.errors import UnknownDomain, UserError
from tune.champions.lookup import resolve

MakeBundle = Callable[..., Path]
Crown = Callable[[str, Path], None]


def found(**options: bool) -> Adapters:
    return find_adapters({}, checkpoint=None, device="cpu", **options)


def altered(bundle: Path, out: Path, **changes: object) -> Path:
    """A copy whose card says something else."""
    shutil.copytree(bundle, out)
    card = json.loads((out / "card.json").read_text())
    (out / "card.json").write_text(json.dumps(card | changes))
    return out


def test_without_champions_nothing_starts() -> None:
    with pytest.raises(UnknownDomain, match="no domain has a champion yet: run `infosam sweep`, or name --bundle"):
        found()
    assert found(plain=True).pool().pool.domains() == ()


def test_a_registry_that_cannot_be_asked_or_is_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the champions cannot be looked up"):
        Adapters(tracking_uri="http://127.0.0.1:9", home=tmp_path, device="cpu").pool()
    with pytest.raises(UserError, match=r"registry sqlite:.* is not on this machine"):
        Adapters(tracking_uri=f"sqlite:///{tmp_path}/none.db", home=tmp_path, device="cpu").pool()


def test_champions_that_cannot_be_used_are_named_and_listed(
    make_bundle: MakeBundle, crown: Crown, tmp_path: Path
) -> None:
    crown("spores", make_bundle(0))
    crown("leaf", make_bundle(1))
    champion = resolve("leaf")
    assert champion is not None
    (champion / "rest.safetensors").write_bytes(b"torn")
    base = json.loads((make_bundle(0) / "card.json").read_text())["base"] | {"sha256": "0" * 64}
    crown("road", altered(make_bundle(0), tmp_path / "road", base=base))
    filled = found().pool()
    assert filled.pool.domains() == ("spores",)
    leaf, road = filled.problems
    assert leaf.startswith("leaf: version 1 cannot be used")
    assert road.startswith("road: version 1 cannot be used")
    filled.require("spores")
    filled.require("auto")
    with pytest.raises(UnknownDomain, match=r"there is no adapter for 'leaf' here:\n  leaf: version 1 cannot be used"):
        filled.require("leaf")
    assert filled.follower is not None
    offers = {one.domain: one for one in offers_of(filled.pool, filled.follower.standings)}
    assert list(offers) == ["leaf", "road", "spores"]
    assert (offers["spores"].version, offers["spores"].problem) == ("1", None)
    assert (offers["road"].version, offers["road"].automatic) == (None, False)
    assert "version 1 cannot be used" in (offers["road"].problem or "")
    for domain in ("spores", "auto", "none"):
        check_offered(domain, filled.pool, filled.follower.standings)
    with pytest.raises(UserError, match="leaf: version 1 cannot be used"):
        check_offered("leaf", filled.pool, filled.follower.standings)
    with pytest.raises(UnknownDomain, match="known domains: leaf, road, spores"):
        check_offered("moss", filled.pool, filled.follower.standings)


def test_nothing_that_can_be_chosen_is_said(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """A bundle of an older version, without statistics."""
    card = json.loads((make_bundle(0) / "card.json").read_text())
    files = {name: digest for name, digest in card["files"].items() if not name.startswith("routing")}
    old = altered(make_bundle(0), tmp_path / "old", files=files, routing=None)
    filled = find_adapters({"old": old}, checkpoint=None, device="cpu").pool()
    filled.require("old")
    with pytest.raises(UserError, match=r"no adapter here can be chosen automatically:\n  old is never chosen"):
        filled.require("auto")
    check_offered("old", filled.pool, {})
    with pytest.raises(UserError, match="no adapter here can be chosen automatically"):
        check_offered("auto", filled.pool, {})
