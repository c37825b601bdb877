"""How the aliases move, on a real registry on SQLite."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from infosam.errors import UserError
from tune.champions.lookup import champions, domains, resolve
from tune.champions.promotion import Challenger, Rescore, force, promote, rollback
from tune.champions.registry import Registry, Version, open_registry
from tune.champions.rule import PerImage, describe
from tune.home import Home

Offer = Callable[..., Challenger]
FAKES = Path(__file__).parents[1] / "fakes"


def aliases(store: str) -> dict[str, str]:
    model = MlflowClient(tracking_uri=store).get_registered_model("infosam-polyp")
    return {alias: str(version) for alias, version in model.aliases.items()}


def version(store: str, number: str) -> Version:
    with open_registry(store) as registry:
        return registry.require("polyp", number)


def test_a_promoted_bundle_is_found_by_its_domain(store: str, offer: Offer, rescore: Rescore) -> None:
    challenger = offer(0.8)
    promotion = promote(store, challenger, rescore)
    assert (promotion.promoted, promotion.model, promotion.version) == (True, "infosam-polyp", "1")
    assert domains() == ["polyp"]
    bundle = resolve("polyp")
    assert bundle is not None
    assert (bundle / "card.json").read_text() == (challenger.bundle / "card.json").read_text()
    assert resolve("leaf") is None
    assert aliases(store) == {"champion": "1"}
    tags = version(store, "1").tags
    assert tags["reasons"] == "; ".join(promotion.reasons)
    assert (tags["decision"], tags["judged_against"]) == ("promoted", "none")
    assert (tags["sweep_id"], tags["trial_id"], tags["seed"], tags["prompt"]) == ("polyp-1", "t0003", "7", "box")
    assert (tags["val/box/dice"], tags["zero_shot/val/box/dice"]) == ("0.800000", "0.600000")
    assert version(store, "1").run_id == challenger.run_id


def test_a_better_one_takes_over_and_a_worse_one_waits(store: str, offer: Offer, rescore: Rescore) -> None:
    promote(store, offer(0.8), rescore)
    worse = promote(store, offer(0.75), rescore)
    assert (worse.promoted, worse.version) == (False, "2")
    assert aliases(store) == {"champion": "1", "challenger": "2"}
    refused = version(store, "2").tags
    assert (refused["decision"], refused["judged_against"]) == ("refused", "1")
    assert "does not beat champion version 1 at 0.8000" in refused["reasons"]
    assert promote(store, offer(0.9), rescore).promoted
    assert aliases(store) == {"champion": "3", "previous": "1", "challenger": "2"}
    (champion,) = champions()
    assert (champion.number, champion.aliases) == ("3", ("champion",))


def test_the_champion_is_scored_on_the_challengers_images(store: str, offer: Offer, rescore: Rescore) -> None:
    promote(store, offer(0.8), rescore)
    asked: list[Path] = []

    def other_images(bundle: Path) -> PerImage:
        asked.append(bundle)
        return rescore(bundle) + 0.15

    assert not promote(store, offer(0.9), other_images).promoted
    assert asked == [resolve("polyp")]


def test_a_champion_that_cannot_be_scored_stays(store: str, offer: Offer, rescore: Rescore) -> None:
    promote(store, offer(0.8), rescore)

    def without_weights(bundle: Path) -> PerImage:
        raise UserError("its base weights are not here")

    decision = promote(store, offer(0.9), without_weights)
    assert not decision.promoted
    assert "cannot be compared, so it stays: its base weights are not here" in decision.reasons[0]


def test_offered_again_it_is_the_same_version(store: str, offer: Offer, rescore: Rescore) -> None:
    challenger = offer(0.8)
    first, again = promote(store, challenger, rescore), promote(store, challenger, rescore)
    assert (again.promoted, again.version) == (True, "1")
    assert describe(again.reasons) == describe(first.reasons)
    assert aliases(store) == {"champion": "1"}


def test_a_champion_made_meanwhile_is_compared_too(store: str, offer: Offer, rescore: Rescore) -> None:
    promote(store, offer(0.75), rescore)
    rivals = [offer(0.9)]

    def interrupted(bundle: Path) -> PerImage:
        if rivals:
            promote(store, rivals.pop(), rescore)
        return rescore(bundle)

    decision = promote(store, offer(0.8), interrupted)
    assert not decision.promoted
    assert "does not beat champion version 3 at 0.9000" in decision.reasons[0]
    assert aliases(store) == {"champion": "3", "previous": "1", "challenger": "2"}


@pytest.mark.slow
def test_several_processes_at_once_leave_the_best_as_champion(
    home: Home, store: str, offer: Offer, rescore: Rescore, tmp_path: Path
) -> None:
    promote(store, offer(0.75), rescore)
    program = [sys.executable, str(FAKES / "challengers.py"), store, home.artifacts.as_uri(), str(tmp_path / "others")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {dice: subprocess.Popen([*program, str(dice)], **pipes) for dice in (0.8, 0.85, 0.9)}
    for worker in workers.values():
        assert worker.stdout.readline() == "ready\n"
    gaps, over = [], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            gaps.append("champion" not in aliases(store))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for worker in workers.values():
        worker.stdin.write("go\n")
        worker.stdin.flush()
    decisions = {dice: json.loads(worker.communicate()[0]) for dice, worker in workers.items()}
    over.set()
    watcher.join()
    assert len(gaps) > 0
    assert not any(gaps)
    assert decisions[0.9]["promoted"]
    assert aliases(store)["champion"] == decisions[0.9]["version"]
    assert sorted(one["version"] for one in decisions.values()) == ["2", "3", "4"]
    for one in decisions.values():
        assert version(store, one["version"]).tags["decision"] == ("promoted" if one["promoted"] else "refused")
    assert not any(key.startswith("turn.") for key in MlflowClient(store).get_registered_model("infosam-polyp").tags)


def test_a_crash_on_the_way_leaves_the_champion(
    store: str, offer: Offer, rescore: Rescore, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, offer(0.8), rescore)
    whole = MlflowClient.set_registered_model_alias

    def dies(self: MlflowClient, name: str, alias: str, number: str) -> None:
        if alias == "champion":
            raise MlflowException("the server went away")
        whole(self, name, alias, number)

    challenger = offer(0.9)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", dies)
        with pytest.raises(UserError, match="the server went away"):
            promote(store, challenger, rescore)
    assert aliases(store)["champion"] == "1"
    assert promote(store, challenger, rescore).promoted
    assert aliases(store) == {"champion": "2", "previous": "1"}


def test_an_alias_moved_by_a_stranger_is_noticed(
    store: str, offer: Offer, rescore: Rescore, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(store, offer(0.8), rescore)
    whole = MlflowClient.set_registered_model_alias

    def undone(self: MlflowClient, name: str, alias: str, number: str) -> None:
        whole(self, name, alias, "1" if alias == "champion" else number)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", undone)
    with pytest.raises(UserError, match="someone else moved the alias to version 1"):
        promote(store, offer(0.9), rescore)


class TestByHand:
    @pytest.fixture
    def registry(self, store: str, offer: Offer, rescore: Rescore) -> Registry:
        """Version 1 is champion, version 2 was refused."""
        promote(store, offer(0.8), rescore)
        promote(store, offer(0.75), rescore)
        return Registry(store)

    def test_a_refused_one_can_be_forced(self, store: str, registry: Registry) -> None:
        force(registry, registry.require("polyp", "challenger"), "it is better on the new microscope")
        assert aliases(store) == {"champion": "2", "previous": "1"}
        tags = version(store, "2").tags
        assert (tags["decision"], tags["reasons"]) == ("forced", "by hand: it is better on the new microscope")

    def test_the_champion_need_not_be_forced(self, registry: Registry) -> None:
        with pytest.raises(UserError, match="is the champion already"):
            force(registry, registry.require("polyp", "1"), "why not")

    def test_back_and_forth(self, store: str, registry: Registry) -> None:
        with pytest.raises(UserError, match="has had one champion only"):
            rollback(registry, "polyp")
        force(registry, registry.require("polyp", "2"), "try")
        now, before = rollback(registry, "polyp")
        assert before is not None
        assert (now.number, before.number) == ("1", "2")
        assert aliases(store) == {"champion": "1", "previous": "2"}
        assert "rolled_back" in version(store, "2").tags
        rollback(registry, "polyp")
        assert aliases(store) == {"champion": "2", "previous": "1"}

    def test_a_broken_bundle_is_not_promoted(self, store: str, registry: Registry) -> None:
        broken = registry.require("polyp", "2")
        bundle = Path(broken.source.removeprefix("file://")) / "artifacts" / "bundle"
        (bundle / "rest.safetensors").write_bytes(b"other")
        with pytest.raises(UserError, match=r"infosam-polyp version 2 cannot be used: .*damaged"):
            force(registry, broken, "it looked good")
        assert aliases(store)["champion"] == "1"


def test_a_broken_bundle_is_not_registered(store: str, offer: Offer, rescore: Rescore) -> None:
    challenger = offer(0.8)
    shutil.copyfile(challenger.bundle / "card.json", challenger.bundle / "rest.safetensors")
    with pytest.raises(UserError, match="damaged"):
        promote(store, challenger, rescore)
    with open_registry(store) as registry:
        assert registry.domains() == []


def test_another_bundle_of_the_same_trial_is_another_version(store: str, offer: Offer, rescore: Rescore) -> None:
    challenger = offer(0.8)
    promote(store, challenger, rescore)
    first = resolve("polyp")
    card = json.loads((challenger.bundle / "card.json").read_text()) | {"epoch": 9}
    (challenger.bundle / "card.json").write_text(json.dumps(card))
    better = replace(challenger, evidence=offer(0.9).evidence)
    assert promote(store, better, rescore).version == "2"
    assert resolve("polyp") != first
    with open_registry(store) as registry:
        assert rollback(registry, "polyp")[0].number == "1"
    assert resolve("polyp") == first
