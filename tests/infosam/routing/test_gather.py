"""A pool from whatever bundles there are: the broken ones are named, the others work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infosam.errors import BundleError, UnknownDomain, UserError
from infosam.peft.config import LoraConfig
from infosam.routing import gather as room
from infosam.routing.gather import by_domain, champion_bundles, gather


def changed(bundle: Path, copy: Path, **base: object) -> Path:
    """A copy of a bundle that says it goes on another base."""
    shutil.copytree(bundle, copy)
    card = json.loads((copy / "card.json").read_text(encoding="utf-8"))
    card["base"] |= base
    (copy / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return copy


class TestGather:
    def test_all_sound(self, routed: dict[str, Path]) -> None:
        made = gather(routed, device="cpu")
        assert made.problems == []
        assert made.pool.routable() == tuple(sorted(routed))

    def test_the_broken_are_named_and_the_others_work(self, routed, make_bundle, tmp_path: Path) -> None:
        broken = Path(shutil.copytree(routed["violet"], tmp_path / "broken"))
        (broken / "rest.safetensors").write_bytes(b"damaged")
        unlike = Path(shutil.copytree(routed["violet"], tmp_path / "unlike"))
        card = json.loads((unlike / "card.json").read_text(encoding="utf-8"))
        card["routing"]["scorer"] = "oracle"
        (unlike / "card.json").write_text(json.dumps(card), encoding="utf-8")
        places = {
            "spores": routed["spores"],
            "negative": routed["negative"],
            "broken": broken,
            "gone": tmp_path / "gone",
            "old": make_bundle(LoraConfig(rank=2)),
            "other": changed(routed["violet"], tmp_path / "other", sha256="0" * 64),
            "unlike": unlike,
        }
        made = gather(places, device="cpu")
        assert made.pool.domains() == ("negative", "old", "spores")
        assert made.pool.routable() == ("negative", "spores")
        problems = {problem.split()[0]: problem for problem in made.problems}
        assert problems.keys() == {"broken", "gone", "old", "other", "unlike"}
        assert "damaged" in problems["broken"]
        assert "not an adapter bundle" in problems["gone"]
        assert "has no statistics of its images" in problems["old"]
        assert "its masks would be wrong" in problems["other"]
        assert "scorer" in problems["unlike"]

    def test_nothing_usable(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"(?s)no bundle can be used:.*gone is left out: .*not an adapter bundle"):
            gather({"gone": tmp_path / "gone"})

    def test_the_base_of_most(self, routed, tmp_path: Path) -> None:
        """The first by name is not the one that decides."""
        places = {"a": changed(routed["violet"], tmp_path / "a", image_px=96), **routed}
        assert gather(places, device="cpu").pool.domains() == tuple(sorted(routed))


class TestByDomain:
    def test_cards_name_them(self, routed: dict[str, Path]) -> None:
        assert by_domain(list(routed.values())) == routed

    def test_two_of_one_domain(self, routed, tmp_path: Path) -> None:
        twin = Path(shutil.copytree(routed["spores"], tmp_path / "twin"))
        with pytest.raises(BundleError, match="are both of the domain spores; name one of them"):
            by_domain([routed["spores"], twin])

    def test_a_folder_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="not an adapter bundle"):
            by_domain([tmp_path])


class TestChampions:
    def test_those_that_resolve(self, monkeypatch: pytest.MonkeyPatch, routed) -> None:
        def resolve(domain: str) -> Path:
            if domain == "broken":
                raise UserError("version 3 cannot be used: it is gone")
            return routed[domain]

        monkeypatch.setattr(room, "known_domains", lambda: (["broken", "spores"], ["entry point x is not available"]))
        monkeypatch.setattr(room, "resolve_domain", resolve)
        found, problems = champion_bundles()
        assert found == {"spores": routed["spores"]}
        assert problems == [
            "entry point x is not available", "broken is left out: version 3 cannot be used: it is gone",
        ]  # fmt: skip

    def test_none_at_all(self) -> None:
        with pytest.raises(UnknownDomain, match="no domain has a champion yet"):
            champion_bundles()
