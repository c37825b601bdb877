"""`infosam champions ...`, as typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from infosam.bundle import read_bundle
from infosam.errors import UserError
from tune.champions.commands import champions_app
from tune.champions.promotion import Challenger, Rescore, promote

Offer = Callable[..., Challenger]


def call(*arguments: str) -> str:
    """What a command prints, with every run of blanks as one."""
    root = typer.Typer()
    root.add_typer(champions_app, name="champions")
    result = CliRunner().invoke(root, ["champions", *arguments], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.fixture
def three(store: str, offer: Offer, rescore: Rescore) -> None:
    """Version 1 was champion, version 2 is, version 3 was refused."""
    promote(store, offer(0.8), rescore)
    promote(store, offer(0.9, config={"model": {}, "peft": {"kind": "lora", "rank": 8}}), rescore)
    promote(store, offer(0.85), rescore)


def test_nothing_yet() -> None:
    assert "No domain has a champion yet" in call("list")
    assert "run `infosam sweep`" in refused("show", "polyp")


@pytest.mark.usefixtures("three")
class TestADomain:
    def test_list(self) -> None:
        text = call("list")
        assert "polyp │ 2 │ 0.900 │ 0.900 │ polyp-1 │ t0003" in text

    def test_show(self) -> None:
        text = call("show", "polyp")
        for words in (
            "│ 3 │ challenger │ 0.850", "refused │ 2", "│ 2 │ champion │ 0.900", "│ 1 │ previous │ 0.800",
            "Version 3 (challenger): val Dice 0.8500 (box prompt) does not beat champion version 2 at 0.9000",
            "Version 2 (champion): val Dice 0.9000 (box prompt) beats zero-shot at 0.6000: the 95 % interval",
            "Adapter of InfoSAM for the domain polyp: lora on vit_nano at 64 px.",
        ):  # fmt: skip
            assert words in text

    def test_an_unknown_domain_or_version_is_named(self) -> None:
        assert refused("show", "leaf") == "domain 'leaf' is not registered; known domains: polyp"
        assert "no version or alias '9'; it has the versions 3, 2, 1" in refused("pull", "polyp", "--out", "x",
                                                                                 "--version", "9")  # fmt: skip

    def test_promote_wants_the_rule_or_a_reason(self) -> None:
        assert "give --data DIR" in refused("promote", "polyp", "3")
        assert "judged before: val Dice 0.8500" in refused("promote", "polyp", "3")

    def test_promote_by_force_and_rollback(self) -> None:
        assert "infosam-polyp version 3, by force: new microscope" in call(
            "promote", "polyp", "challenger", "--force", "new microscope"
        )
        assert "forced" in call("show", "polyp")
        assert call("rollback", "polyp") == ("Champion of polyp: infosam-polyp version 2; version 3 is now `previous`")
        assert "forced, rolled back" in call("show", "polyp")

    def test_pull(self, tmp_path: Path) -> None:
        out = tmp_path / "bundle"
        assert f"infosam-polyp version 2 is in {out}" in call("pull", "polyp", "--out", str(out))
        assert read_bundle(out).card["config"]["peft"]["rank"] == 8
        call("pull", "polyp", "--out", str(out), "--version", "previous")
        assert read_bundle(out).card["config"]["peft"]["rank"] == 2
        assert [path.name for path in tmp_path.glob("bundle*")] == ["bundle"]

    def test_pull_leaves_other_folders_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("all of it")
        assert "no adapter bundle, so it is left alone" in refused("pull", "polyp", "--out", str(tmp_path))
        assert (tmp_path / "thesis.tex").exists()

    def test_diff(self) -> None:
        text = call("diff", "polyp", "previous", "champion")
        assert "version 1" in text
        assert "peft.rank │ 2 │ 8" in text
        assert "val/box/dice │ 0.8000 │ 0.9000 │ +0.1" in text
        assert "peft.kind" not in text
        assert "No difference" in call("diff", "polyp", "1", "1")


def test_a_domain_without_champion(store: str, offer: Offer, rescore: Rescore) -> None:
    promote(store, offer(0.65), lambda bundle: pytest.fail("there is no champion"))
    assert "polyp │ none" in call("list")
    text = call("show", "polyp")
    assert "polyp has no champion" in text
    assert "does not beat the best trivial baseline" in text
    assert "has had one champion only" not in refused("rollback", "polyp")


def test_promote_by_the_rule_on_named_data(
    store: str, offer: Offer, rescore: Rescore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The scoring is replaced: its own test has real bundles."""
    promote(store, offer(0.8), rescore)
    promote(store, offer(0.75), rescore)
    asked: dict[str, Any] = {}

    def elsewhere(**settings: Any) -> Any:
        asked.update(settings)
        return SimpleNamespace(evidence=lambda bundle: offer(0.9).evidence, rescore=rescore)

    monkeypatch.setattr("tune.champions.contest.Contest", elsewhere)
    text = call("promote", "polyp", "2", "--data", str(tmp_path))
    assert "Champion of polyp: infosam-polyp version 2; val Dice 0.9000" in text
    assert (asked["data"], asked["prompt"]) == (tmp_path, "box")
    assert "challenger" not in call("show", "polyp")
