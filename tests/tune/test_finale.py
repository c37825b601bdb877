"""The end of a sweep with a real bundle: scored on test once, offered once, and remembered."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import infosam.evaluation
from infosam.assessment import assess_bundle
from infosam.bundle import read_bundle
from tune.config import SweepConfig
from tune.events import EpochReported, Event, PromotionDecided, ScoredOnTest, SweepEnded, TrialEnded, TrialStarted
from tune.finale import crown, recall, summarise
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import SweepPlan, make_plan
from tune.results import SweepOutcome, measured_lines
from tune.tracking import new_client


@pytest.fixture
def plan(sweep_config: SweepConfig, home: Home, trained: Path) -> SweepPlan:
    """Of a sweep whose only trial left the bundle."""
    plan = make_plan(sweep_config, home)
    shutil.copytree(trained, plan.folder / "trials" / "t0000" / "bundle")
    return plan


def outcome_of(plan: SweepPlan, *events: Event) -> SweepOutcome:
    bundle = plan.folder / "trials" / "t0000" / "bundle"
    values = read_bundle(bundle).card["metrics"]["adapter"]
    ledger = Ledger()
    for event in (
        TrialStarted(trial_id="t0000", values={"optim.lr": 1e-3}),
        EpochReported(trial_id="t0000", epoch=1, values=values, checkpoint="checkpoint", is_best=True),
        TrialEnded(trial_id="t0000", state="FINISHED", reason="completed"),
        *events,
    ):
        ledger(event)
    return SweepOutcome(
        sweep_id=plan.sweep_id,
        domain=plan.domain,
        folder=plan.folder,
        tracking_uri=plan.tracking_uri,
        seed=0,
        ledger=ledger,
        champion=ledger.champion(),
        bundle=bundle,
    )


class Tracked:
    """A tracker that has written the trial's run, or whose server is away."""

    def __init__(self, plan: SweepPlan, *, reachable: bool = True) -> None:
        client = new_client(plan.tracking_uri)
        run = client.create_run(client.create_experiment("end", artifact_location=plan.home.artifacts.as_uri()))
        self._run_id = run.info.run_id
        self._reachable = reachable

    def flush(self) -> bool:
        return self._reachable

    def run_of(self, trial_id: str) -> str:
        return self._run_id


@pytest.mark.slow
def test_the_end_happens_once(plan: SweepPlan, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker: Any = Tracked(plan)
    first, told = outcome_of(plan), list[Event]()
    metrics = read_bundle(plan.folder / "trials" / "t0000" / "bundle").card["metrics"]
    materials = SimpleNamespace(zero_shot=metrics["zero_shot"], trivial=metrics["trivial"])
    crown(first, plan, materials, tracker, console, told.append)
    assert first.promotion is not None, first.unregistered
    scored, decided = told
    assert isinstance(scored, ScoredOnTest)
    assert isinstance(decided, PromotionDecided)
    assert (decided.trial_id, decided.version, decided.promoted) == ("t0000", "1", first.promotion.promoted)
    assert [(gain.split, gain.prompt) for gain in first.gains] == [
        ("val", "box"), ("val", "none"), ("test", "box"), ("test", "none"),
    ]  # fmt: skip
    ended = summarise(first, "FINISHED")
    assert ended.tags["promotion"] == ("promoted" if decided.promoted else "refused")
    assert ended.metrics["test/box/dice"] == first.gains[2].adapter
    whole_set = assess_bundle(plan.folder / "trials" / "t0000" / "bundle", plan.config.data, "test", device="cpu")
    for name, values in whole_set.scores["adapter", "none"].items():
        assert ended.metrics[f"test/none/{name}"] == pytest.approx(values.mean(), abs=1e-9)
    assert [line.split(": ")[0] for line in measured_lines(first)] == ["test, truth box", "test, no prompt"]

    looked_at: list[str] = []
    whole = infosam.evaluation.evaluate_bundle

    def watched(bundle: Path, data: Path, split: Any, **settings: Any) -> Any:
        looked_at.append(split)
        return whole(bundle, data, split, **settings)

    monkeypatch.setattr(infosam.evaluation, "evaluate_bundle", watched)
    again = outcome_of(plan)
    crown(again, plan, materials, tracker, console, told.append)
    assert looked_at == ["val"]  # the test images are not looked at again
    assert again.gains == first.gains
    assert again.promotion is not None
    assert again.promotion.version == "1"

    recalled = outcome_of(plan, decided, SweepEnded(state="FINISHED", reason="completed", note=""))
    recall(recalled, plan)
    assert recalled.gains == first.gains
    assert recalled.measured == first.measured
    assert recalled.promotion == first.promotion
    assert (recalled.overlay, recalled.bundle, recalled.protocol) == (first.overlay, first.bundle, first.protocol)


@pytest.mark.slow
def test_what_the_server_did_not_take_is_not_offered(plan: SweepPlan, console: Console) -> None:
    tracker: Any = Tracked(plan, reachable=False)
    outcome, told = outcome_of(plan), list[Event]()
    materials = SimpleNamespace(zero_shot=dict.fromkeys(_keys(), 0.5), trivial=dict.fromkeys(_keys(), 0.5))
    crown(outcome, plan, materials, tracker, console, told.append)
    assert outcome.promotion is None
    assert [type(event) for event in told] == [ScoredOnTest]
    assert "did not take the records" in str(outcome.unregistered)
    ended = summarise(outcome, "FINISHED")
    recalled = outcome_of(plan, ended)
    recall(recalled, plan)
    assert recalled.unregistered == outcome.unregistered


def _keys() -> list[str]:
    return [f"val/{prompt}/{score}" for prompt in ("box", "none") for score in ("dice", "iou")]
