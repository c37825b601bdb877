"""Who becomes champion, by validation only, and how a champion is found again. A real registry on SQLite."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from infosam.errors import UserError
from tune.champions import Challenger, Incumbent, Scores, champions, domains, judge, promote, resolve
from tune.home import Home
from tune.tracking import new_client


def scores(box: float, none: float = 0.1) -> dict[str, float]:
    return {"val/box/dice": box, "val/none/dice": none, "val/box/iou": box / 2, "val/none/iou": none / 2}


def challenger(dice: float = 0.8, *, uri: str = "file:///nowhere", run_id: str = "r", digest: str = "d1") -> Challenger:
    return Challenger(
        domain="polyp",
        prompt="box",
        scores=scores(dice),
        zero_shot=scores(0.6, 0.5),
        trivial=scores(0.7, 0.5),
        data_digest=digest,
        base_sha256="b",
        bundle_uri=uri,
        run_id=run_id,
        tags={"sweep_id": "polyp", "trial_id": "t0003"},
    )


def never(bundle: Path) -> Scores:
    raise AssertionError("nothing had to be scored again")


@pytest.fixture
def trained(home: Home) -> Challenger:
    """A challenger whose bundle is a real artifact of a real run."""
    return logged(home, 0.8)


def logged(home: Home, dice: float, digest: str = "d1") -> Challenger:
    client = new_client(home.tracking_uri)
    name = f"e{dice}{digest}"
    run = client.create_run(client.create_experiment(name, artifact_location=(home.artifacts / name).as_uri()))
    folder = home.folder / "made"
    folder.mkdir(exist_ok=True)
    (folder / "card.json").write_text(f'{{"dice": {dice}}}')
    client.log_artifacts(run.info.run_id, str(folder), "bundle")
    return challenger(dice, uri=f"{run.info.artifact_uri}/bundle", run_id=run.info.run_id, digest=digest)


@pytest.mark.parametrize(
    ("dice", "incumbent", "promoted", "words"),
    [
        (0.8, None, True, "beats zero-shot at 0.6000"),
        (0.65, None, False, "does not beat the best trivial baseline at 0.7000"),
        (0.5, None, False, "does not beat zero-shot at 0.6000"),
        (0.7, None, False, "does not beat the best trivial baseline at 0.7000"),
        (0.8, Incumbent(version="3", scores=scores(0.75)), True, "beats champion version 3 at 0.7500"),
        (0.8, Incumbent(version="3", scores=scores(0.85)), False, "does not beat champion version 3 at 0.8500"),
        (0.8, Incumbent(version="3", scores=None, why_unknown="its base is gone"), False, "its base is gone"),
    ],
)
def test_a_challenger_must_beat_everything(
    dice: float, incumbent: Incumbent | None, promoted: bool, words: str
) -> None:
    decision, reasons = judge(challenger(dice), incumbent)
    assert decision is promoted
    assert words in "; ".join(reasons)


def test_the_prompt_the_sweep_chose_by_decides() -> None:
    by_none = replace(challenger(0.9), prompt="none")
    assert judge(by_none, None)[0] is False


def test_a_promoted_bundle_is_found_by_its_domain(home: Home, trained: Challenger) -> None:
    promotion = promote(home.tracking_uri, trained, never)
    assert (promotion.promoted, promotion.model, promotion.version) == (True, "infosam-polyp", "1")
    assert domains() == ["polyp"]
    bundle = resolve("polyp")
    assert bundle is not None
    assert (bundle / "card.json").read_text() == '{"dice": 0.8}'
    assert resolve("leaf") is None
    version = MlflowClient(tracking_uri=home.tracking_uri).get_model_version_by_alias("infosam-polyp", "champion")
    assert version.tags["reasons"] == "; ".join(promotion.reasons)
    assert version.tags["val/box/dice"] == "0.800000"
    assert version.run_id == trained.run_id


def test_a_better_one_takes_over_and_a_worse_one_does_not(home: Home, trained: Challenger) -> None:
    promote(home.tracking_uri, trained, never)
    assert promote(home.tracking_uri, logged(home, 0.75), never).promoted is False
    assert champions()[0].version == "1"
    assert promote(home.tracking_uri, logged(home, 0.9), never).promoted is True
    (champion,) = champions()
    assert (champion.version, champion.tags["val/box/dice"]) == ("2", "0.900000")


@pytest.mark.parametrize(("rescored", "promoted"), [(0.85, True), (0.95, False)])
def test_a_champion_of_other_data_is_scored_again(
    home: Home, trained: Challenger, rescored: float, promoted: bool
) -> None:
    promote(home.tracking_uri, trained, never)
    asked: list[Path] = []

    def rescore(bundle: Path) -> Scores:
        asked.append(bundle)
        return scores(rescored)

    decision = promote(home.tracking_uri, logged(home, 0.9, digest="d2"), rescore)
    assert decision.promoted is promoted
    assert asked == [resolve("polyp")] if not promoted else asked


def test_a_champion_that_cannot_be_scored_again_stays(home: Home, trained: Challenger) -> None:
    promote(home.tracking_uri, trained, never)

    def rescore(bundle: Path) -> Scores:
        raise UserError("its base weights are not here")

    decision = promote(home.tracking_uri, logged(home, 0.9, digest="d2"), rescore)
    assert decision.promoted is False
    assert "its base weights are not here" in "; ".join(decision.reasons)


def test_asking_for_champions_makes_no_store(home: Home) -> None:
    assert champions() == []
    assert domains() == []
    assert resolve("polyp") is None
    assert not home.folder.exists()


def test_a_champion_whose_files_are_gone_is_named(home: Home, trained: Challenger) -> None:
    promote(home.tracking_uri, trained, never)
    shutil.rmtree(home.artifacts)
    with pytest.raises(UserError, match="champion of polyp, version 1, lay in"):
        resolve("polyp")


@pytest.mark.slow
def test_a_champion_on_a_server_is_fetched_once(
    home: Home,
    free_port: int,
    serve: Callable[[Home, int], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    home.folder.mkdir(parents=True)
    home.database.touch()
    (tmp_path / "card.json").write_text("on the server")
    with serve(home, free_port) as uri:
        client = new_client(uri)
        run = client.create_run(client.create_experiment("remote"))
        client.log_artifact(run.info.run_id, str(tmp_path / "card.json"), "bundle")
        source = f"{run.info.artifact_uri}/bundle"
        assert source.startswith("mlflow-artifacts:")
        promote(uri, challenger(uri=source, run_id=run.info.run_id), never)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        first = resolve("polyp")
        assert first is not None
        assert (first / "card.json").read_text() == "on the server"
        assert resolve("polyp") == first


def test_a_registry_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"registry at http://127\.0\.0\.1:9"):
        resolve("polyp")
