"""Going on with a sweep: what is refused, what is left to do, and what early stopping and the finale know of before."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from rich.console import Console
from stories import ended

from infosam.errors import ConfigError, UserError
from tune.bucket import Bucket
from tune.champions.lookup import champions
from tune.config import SweepConfig, parse_sweep_config
from tune.event_log import NAME, EventLog
from tune.events import (
    OBJECTIVE,
    BudgetSpent,
    EpochReported,
    Event,
    PromotionDecided,
    ScoredOnTest,
    TrialEnded,
    TrialStarted,
)
from tune.home import Home
from tune.ledger import Ledger
from tune.mirror import pull, push
from tune.plan import SweepPlan, make_plan
from tune.refill import RefilledScheduler
from tune.resume import check_weights, drop_stale_bundles, find_sweep, is_over, reopen, trials_left
from tune.runner import resume_sweep, run_sweep
from tune.sweep_facts import sweep_started
from tune.trial_ids import final_id


def begun(config: SweepConfig, home: Home, events: Sequence[Event] = ()) -> SweepPlan:
    """A sweep whose driver is gone after these events."""
    plan = make_plan(config, home, "tune.noop")
    with contextlib.closing(EventLog(plan.folder / NAME)) as log:
        log(sweep_started(plan, zero_shot={}, base_sha256="b" * 64))
        for event in events:
            log(event)
    return plan


def reopened(plan: SweepPlan, home: Home, *overrides: str) -> SweepPlan:
    ledger = Ledger.replay(plan.folder / NAME)
    return reopen(find_sweep(plan.sweep_id, home), ledger, home, training="tune.noop", overrides=overrides)


def trial(number: int, dice: Sequence[float], reason: Any = "completed", checkpoint: str | None = None) -> list[Event]:
    """A trial with these scores; `reason` None leaves it open."""
    name = f"t{number:04d}"
    states: dict[str, Any] = {"completed": "FINISHED", "error": "FAILED"}
    events: list[Event] = [TrialStarted(trial_id=name, values={"optim.lr": 1e-3})]
    for epoch, value in enumerate(dice, start=1):
        values = {OBJECTIVE: value}
        events.append(EpochReported(trial_id=name, epoch=epoch, values=values, checkpoint=checkpoint, is_best=True))
    if reason:
        events.append(TrialEnded(trial_id=name, state=states.get(reason, "KILLED"), reason=reason))
    return events


def of_trials(config: SweepConfig, count: int) -> SweepConfig:
    return config.model_copy(update={"search": config.search.model_copy(update={"trials": count})})


def ledger_of(*events: Event) -> Ledger:
    ledger = Ledger()
    for event in events:
        ledger(event)
    return ledger


def test_a_sweep_is_found_by_name_and_by_folder(sweep_config: SweepConfig, home: Home) -> None:
    plan = begun(sweep_config, home)
    assert find_sweep(plan.sweep_id, home) == plan.folder
    assert find_sweep(str(plan.folder), home) == plan.folder
    with pytest.raises(UserError, match="there are disc"):
        find_sweep("dics", home)


def test_the_plan_is_that_of_the_beginning(sweep_config: SweepConfig, home: Home) -> None:
    plan = begun(sweep_config, home)
    assert reopened(plan, home) == plan


def test_sweeps_of_one_name_keep_their_checkpoints_apart(sweep_config: SweepConfig, tmp_path: Path) -> None:
    """Two people, or a head that was replaced, and one bucket: the second must not go on from the first one's."""
    mirrored = parse_sweep_config(
        sweep_config.model_dump(mode="json"), [f"resources.mirror=file://{tmp_path / 'bucket'}", "name=mine"], source=""
    )
    homes = [Home(folder=tmp_path / name) for name in ("anna", "ben")]
    plans = [begun(mirrored, home) for home in homes]
    assert [plan.sweep_id for plan in plans] == ["mine", "mine"]
    checkpoints = [plan.folder / "trials" / "t0000" / "checkpoints" for plan in plans]
    for folder in checkpoints:
        folder.mkdir(parents=True)
    (checkpoints[0] / "last").write_text("anna's")
    push(checkpoints[0], Bucket(f"{plans[0].mirror}/t0000"), epoch=7)
    pull(checkpoints[1], Bucket(f"{plans[1].mirror}/t0000"))
    assert not list(checkpoints[1].iterdir())

    again = reopened(plans[0], homes[0], "resources.slots=1")
    (checkpoints[0] / "last").unlink()
    pull(checkpoints[0], Bucket(f"{again.mirror}/t0000"))
    assert (checkpoints[0] / "last").read_text() == "anna's"


def test_only_resources_may_change(sweep_config: SweepConfig, home: Home) -> None:
    plan = begun(sweep_config, home)
    assert reopened(plan, home, "resources.slots=1").config.resources.slots == 1
    with pytest.raises(ConfigError, match=r"search\.trials=9.*only resources"):
        reopened(plan, home, "search.trials=9")


def test_an_edited_sweep_is_refused(sweep_config: SweepConfig, home: Home) -> None:
    plan = begun(sweep_config, home)
    path = plan.folder / "sweep.yaml"
    path.write_text(path.read_text().replace("trials: 6", "trials: 7"))
    with pytest.raises(ConfigError, match="search changed since the sweep began"):
        reopened(plan, home)


def test_other_data_is_refused(sweep_config: SweepConfig, home: Home, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(sweep_config.data, copy)
    plan = begun(sweep_config.model_copy(update={"data": copy}), home)
    card = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(card | {"digest": "0" * 64}))
    with pytest.raises(UserError, match="not the images that sweep disc began with"):
        reopened(plan, home)


def test_other_weights_are_refused(sweep_config: SweepConfig, home: Home) -> None:
    ledger = Ledger.replay(begun(sweep_config, home).folder / NAME)
    check_weights(ledger, "b" * 64)
    with pytest.raises(UserError, match="not the weights the sweep began with"):
        check_weights(ledger, "c" * 64)


def test_a_sweep_that_runs_is_refused(sweep_config: SweepConfig, home: Home, console: Console) -> None:
    plan = begun(sweep_config, home)
    with contextlib.closing(EventLog(plan.folder / NAME)):
        with pytest.raises(UserError, match="another process runs this sweep"):
            resume_sweep(plan.sweep_id, home=home, console=console, training="tune.noop")


def test_open_trials_are_left_to_do(sweep_config: SweepConfig) -> None:
    events = [*trial(0, [0.5]), *trial(1, [0.5], "early_stopped"), *trial(2, [], "error")]
    open_ones = [*trial(3, [0.5], "user"), *trial(4, [0.5], None)]
    assert trials_left(ledger_of(*events, *open_ones), sweep_config) == 3


@pytest.mark.parametrize(
    ("events", "over"),  # of a sweep of one trial
    [
        ([*trial(0, [0.5])], False),
        ([*trial(0, [0.5]), ended()], True),
        ([*trial(0, [0.5], "user"), ended(state="KILLED", reason="user")], False),
        ([*trial(0, [0.5]), ended(state="KILLED", reason="user")], False),
        ([*trial(0, [0.5], checkpoint="here"), ended()], False),
        ([*trial(0, [], "error"), ended(state="FAILED", reason="error")], True),
        ([*trial(0, [0.5]), ended(state="FAILED", reason="error")], False),
        ([ended(state="FAILED", reason="error")], False),
        ([BudgetSpent(what="budget.hours"), ended(state="FAILED", reason="error")], True),
    ],
    ids=[
        "killed", "done", "cut off", "cut off in the finale", "not offered", "all failed", "broken", "no trial",
        "no budget",
    ],
)  # fmt: skip
def test_what_is_over(sweep_config: SweepConfig, events: list[Event], over: bool) -> None:
    assert is_over(ledger_of(*events), of_trials(sweep_config, 1)) is over


def test_a_sweep_whose_first_trials_failed_goes_on_with_the_others(sweep_config: SweepConfig) -> None:
    ledger = ledger_of(*trial(0, [], "error"), ended(state="FAILED", reason="error"))
    assert not is_over(ledger, of_trials(sweep_config, 2))


def test_a_sweep_whose_adapter_was_judged_is_over(sweep_config: SweepConfig) -> None:
    decided = PromotionDecided(trial_id="t0000", promoted=False, model="infosam-x", version="1", reasons=["worse"])
    assert is_over(ledger_of(*trial(0, [0.5], checkpoint="here"), decided, ended()), of_trials(sweep_config, 1))


def test_only_bundles_of_open_trials_are_dropped(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"trials/t000{number}/bundle").mkdir(parents=True)
    drop_stale_bundles(tmp_path, ledger_of(*trial(0, [0.5]), *trial(1, [0.5], "user")))
    assert [path.name for path in tmp_path.glob("trials/*") if (path / "bundle").exists()] == ["t0000"]


def test_a_repeat_that_was_cut_off_does_not_end_the_search(sweep_config: SweepConfig, home: Home) -> None:
    """Nothing of the search is left, so the repeats are next."""
    from tune.study import Part, search

    plan = begun(sweep_config, home)
    repeat = TrialStarted(trial_id=final_id("repeat", "t0000", 1), values={})
    cut_off = TrialEnded(trial_id=repeat.trial_id, state="KILLED", reason="user")
    ledger = ledger_of(*(event for number in range(6) for event in trial(number, [0.5])), repeat, cut_off)
    assert not search([Part(plan=plan, ledger=ledger)], folder=plan.folder, slots=1)


def decisions(scheduler: TrialScheduler, dice: dict[str, list[float]], first: int = 1) -> list[str]:
    """What a scheduler says to each report of these trials, epoch by epoch."""
    controller: Any = SimpleNamespace(get_live_trials=list)
    running = {name: SimpleNamespace(trial_id=f"{name}-{first}", config={"trial": name}) for name in dice}
    for one in running.values():
        scheduler.on_trial_add(controller, one)  # type: ignore[arg-type]
    said = []
    for epoch in range(len(next(iter(dice.values())))):
        for name, values in dice.items():
            row = {"epoch": first + epoch, OBJECTIVE: values[epoch]}
            said.append(scheduler.on_trial_result(controller, running[name], row))  # type: ignore[arg-type]
    return said


def asha() -> ASHAScheduler:
    return ASHAScheduler(time_attr="epoch", metric=OBJECTIVE, mode="max", max_t=8, grace_period=1, reduction_factor=2)


def test_rungs_are_refilled_from_the_log() -> None:
    """A new trial meets those of the dead driver: one worse than most of them is stopped, one better is not."""
    past = [event for number in range(4) for event in trial(number, [0.5 + number / 10], "early_stopped")]
    assert decisions(RefilledScheduler(asha(), ledger_of(*past)), {"t0004": [0.6]}) == ["STOP"]
    assert decisions(RefilledScheduler(asha(), ledger_of(*past)), {"t0004": [0.9]}) == ["CONTINUE"]
    assert decisions(RefilledScheduler(asha(), ledger_of()), {"t0004": [0.6]}) == ["CONTINUE"]


def test_a_trial_that_goes_on_is_in_its_rungs_once() -> None:
    """Told up to epoch 3, it begins with that again; the rungs at 1 and 2 hold it already and it counts for itself."""
    inner = asha()
    scheduler = RefilledScheduler(inner, ledger_of(*trial(0, [0.9, 0.91, 0.92], None)))
    assert decisions(scheduler, {"t0000": [0.92, 0.5]}, first=3) == ["CONTINUE", "CONTINUE"]
    rungs = {milestone: list(recorded.values()) for milestone, recorded in inner._brackets[0]._rungs}
    assert rungs == {8: [], 4: [0.5], 2: [0.91], 1: [0.9]}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_only_the_missing_finale_is_done_and_test_is_scored_once(
    dataset: Path, home: Home, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracking server was away at the end, so nothing was decided; later the sweep needs no Ray and no test."""
    settings = {
        "data": str(dataset),
        "run": {"model": {"image_px": 64}, "train": {"epochs": 1, "batch_size": 3}},
        "space": {"optim.lr": {"choice": [1e-3]}},
        "search": {"trials": 1},
        "scheduler": {"kind": "none"},
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    first = run_sweep(parse_sweep_config(settings, [], source="test"), home=home, console=console)
    assert first.unregistered
    assert first.ledger.test is not None
    scored = [gain for gain in first.gains if gain.split == "test"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    import infosam.evaluation
    import tune.runner

    splits: list[str] = []
    evaluate = infosam.evaluation.evaluate_bundle

    def noted(bundle: Path, data: Path, split: Any, **options: Any) -> Any:
        splits.append(split)
        return evaluate(bundle, data, split, **options)

    monkeypatch.setattr("infosam.evaluation.evaluate_bundle", noted)
    monkeypatch.setattr(tune.runner, "ray_session", None)
    again = resume_sweep("disc", home=home, console=console)
    assert "test" not in splits
    assert [gain for gain in again.gains if gain.split == "test"] == scored
    assert again.promotion is not None
    assert Ledger.replay(first.folder / NAME).promotion is not None
    assert len(champions()) == int(again.promotion.promoted)
    events = (first.folder / NAME).read_text()
    assert events.count(ScoredOnTest.__name__) == 1
    last = resume_sweep("disc", home=home, console=console)
    assert last.promotion == again.promotion
    assert (first.folder / NAME).read_text() == events
