"""Sweeps over several domains at once, on a real Ray: shared slots, and nothing else that is shared."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from mlflow import MlflowClient
from rich.console import Console

from infosam.errors import UserError
from tune.champions import champions
from tune.cli import _show
from tune.config import SweepConfig, load_sweep_config, parse_sweep_configs
from tune.dry_run import dry_run
from tune.event_log import NAME, EventLog, read_events
from tune.events import EpochReported, TrialEnded, TrialStarted
from tune.group import make_group
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import SETTINGS_FILE, make_plan
from tune.results import show_domains
from tune.runner import SweepFailed, resume_sweeps, run_sweeps
from tune.sweep_facts import sweep_started

pytestmark = pytest.mark.usefixtures("ray_cluster")

TRAINING = "domain_training"


@pytest.fixture
def domain(dataset: Path, tmp_path: Path) -> Callable[[str], Path]:
    """The test images under the name of another domain, in a folder of that name."""

    def make(name: str) -> Path:
        folder = tmp_path / "domains" / name
        shutil.copytree(dataset, folder)
        card = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(card | {"domain": name}))
        return folder

    return make


@pytest.fixture
def configure(sweep_config: SweepConfig) -> Callable[..., list[SweepConfig]]:
    """Sweeps of three trials over these folders; overrides change single keys."""

    def make(*folders: Path, overrides: tuple[str, ...] = ()) -> list[SweepConfig]:
        settings = sweep_config.model_dump(mode="json") | {"domains": [str(folder) for folder in folders]}
        del settings["data"]
        return parse_sweep_configs(settings, ["search.trials=3", *overrides], source="test")

    return make


def started(folder: Path) -> list[tuple[float, str]]:
    return [(event.at, event.trial_id) for event, _ in read_events(folder / NAME) if isinstance(event, TrialStarted)]


def rows(ledger: Ledger, *names: str) -> list[tuple[str, int, Any]]:
    """(trial, epoch, what was reported) in order, without times and processes."""
    return [
        (name, epoch.epoch, {key: value for key, value in epoch.values.items() if key in names})
        for name, trial in sorted(ledger.trials.items())
        for epoch in trial.epochs
    ]


def reported(ledger: Ledger, name: str) -> set[float]:
    return {epoch.values[name] for trial in ledger.trials.values() for epoch in trial.epochs}


def test_domains_share_slots_and_nothing_else(
    configure: Any, dataset: Path, domain: Any, home: Home, console: Console
) -> None:
    ring = domain("ring")
    configs = configure(dataset, ring, overrides=("scheduler.kind=none", "final={top: 1, seeds: 2}", "name=night"))
    outcomes = run_sweeps(configs, home=home, console=console, training=TRAINING)
    disc, other = (outcome.ledger for outcome in outcomes)
    assert [outcome.domain for outcome in outcomes] == ["disc", "ring"]
    for ledger in (disc, other):
        assert len(ledger.trials) == 3 + 1  # and a repeat of the best
        assert {trial.end.reason for trial in ledger.trials.values() if trial.end} == {"completed"}
    assert [trial.values for trial in disc.trials.values()] == [trial.values for trial in other.trials.values()]
    best = [outcome.champion.score for outcome in outcomes if outcome.champion]
    assert best[0] - best[1] == pytest.approx(0.1)
    # On two slots, which start anew for the finals; each has loaded the base model once. Two sweeps apart have twice as
    # many. Which slot serves which domain is chance.
    assert len(reported(disc, "worker") | reported(other, "worker")) <= 2 * 2
    assert reported(disc, "bases") | reported(other, "bases") == {1}
    # In turn, as long as both have trials; which slot is ready first is chance.
    order = sorted((at, one.domain) for one in outcomes for at, _ in started(one.folder)[:3])
    assert [{name for _, name in order[turn : turn + 2]} for turn in (0, 2, 4)] == [{"disc", "ring"}] * 3
    assert sorted(path.name for path in home.sweeps.iterdir()) == ["night", "night-disc", "night-ring"]
    assert sorted(path.name for path in (home.sweeps / "night").iterdir()) == ["finals", "group.yaml", "slots", "tune"]
    client = MlflowClient(tracking_uri=home.tracking_uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "infosam"]
    parents = client.search_runs([experiment.experiment_id], "tags.group = 'night'")
    assert {run.info.status for run in parents} == {"FINISHED"}
    assert {run.info.run_name for run in parents} >= {"night-disc", "night-ring"}
    show_domains(console, outcomes)
    text = console.export_text()
    assert "ring t0000 starts" in text
    assert text.count("Leaderboard") == 2
    assert "All domains" in text
    again = resume_sweeps("night", home=home, console=console, training=TRAINING)
    assert [one.champion for one in again] == [one.champion for one in outcomes]
    assert "night-ring is over: nothing to do" in console.export_text()


def test_a_seeded_search_is_the_same_alone_and_in_a_group(
    configure: Any, dataset: Path, domain: Any, home: Home
) -> None:
    """With early stopping, which compares trials, and a sampler that learns from the third trial on."""
    from tune.study import Part, search

    ring = domain("ring")
    overrides = ("search.trials=5", "search.startup_trials=2", "search.seed=3")
    alone = [Part(plan=make_plan(configure(ring, overrides=overrides)[0], home, TRAINING), ledger=Ledger())]
    search(alone, folder=alone[0].plan.folder, slots=1)
    group = make_group(configure(dataset, ring, overrides=overrides), home, TRAINING)
    parts = [Part(plan=plan, ledger=Ledger()) for plan in group.plans]
    search(parts, folder=group.folder, slots=1)
    found, expected = parts[1].ledger, alone[0].ledger
    assert {name: trial.values for name, trial in found.trials.items()} == {
        name: trial.values for name, trial in expected.trials.items()
    }
    assert rows(found, "val/dice") == rows(expected, "val/dice")
    assert [trial.end and trial.end.reason for trial in found.trials.values()] == [
        trial.end and trial.end.reason for trial in expected.trials.values()
    ]


def test_a_domain_that_fails_leaves_the_others_their_champion(
    configure: Any, dataset: Path, domain: Any, home: Home, console: Console
) -> None:
    """And one that has reached its target ends its own search only."""
    configs = configure(
        domain("ring"), domain("broken"), dataset, overrides=("budget.target=0.745", "scheduler.kind=none")
    )
    ring, broken, disc = run_sweeps(configs, home=home, console=console, training=TRAINING)
    assert broken.failure is not None
    assert "every trial of broken failed" in broken.failure
    assert "not fit to learn from" in broken.failure
    assert (ring.failure, disc.failure) == (None, None)
    assert ring.champion is not None
    assert disc.champion is not None
    assert disc.ledger.budget is not None
    assert all(trial.end and trial.end.state != "FAILED" for trial in ring.ledger.trials.values())
    assert len(broken.ledger.trials) == 3
    with pytest.raises(SweepFailed, match="every trial of broken failed"):
        _show([ring, broken, disc], console)
    client = MlflowClient(tracking_uri=home.tracking_uri)
    (experiment,) = [one for one in client.search_experiments() if one.name == "infosam"]
    runs = client.search_runs([experiment.experiment_id], "tags.sweep_id = 'broken'")
    assert {run.info.status for run in runs} == {"FAILED"}


def test_a_group_goes_on_after_its_driver_died(
    configure: Any, dataset: Path, domain: Any, home: Home, console: Console
) -> None:
    """Killed when one sweep had a trial behind it and another under way, and the other had not begun to write."""
    group = make_group(configure(dataset, domain("ring"), overrides=("scheduler.kind=none",)), home, TRAINING)
    first, second = group.plans
    with contextlib.closing(EventLog(first.folder / NAME)) as log:
        log(sweep_started(first, zero_shot={}, base_sha256="0" * 64))
        for number in range(2):
            name = f"t{number:04d}"
            log(TrialStarted(trial_id=name, values={"optim.lr": 1e-3 * (number + 1), "peft.rank": 2}))
            for epoch in range(1, 5 - 2 * number):
                values = {"val/dice": 0.2 * epoch}
                log(EpochReported(trial_id=name, epoch=epoch, values=values, checkpoint=None, is_best=True))
            if not number:
                log(TrialEnded(trial_id=name, state="FINISHED", reason="completed"))
    with contextlib.closing(EventLog(second.folder / NAME)):
        with pytest.raises(UserError, match="another process runs this sweep"):
            resume_sweeps("disc-ring", home=home, console=console, training=TRAINING)
    outcomes = resume_sweeps("disc-ring", home=home, console=console, training=TRAINING)
    for outcome in outcomes:
        assert sorted(outcome.ledger.trials) == ["t0000", "t0001", "t0002"]
        assert {trial.end.state for trial in outcome.ledger.trials.values() if trial.end} == {"FINISHED"}
    assert outcomes[0].ledger.trials["t0000"].epochs[-1].values == {"val/dice": 0.8}
    assert [name for _, name in started(first.folder)].count("t0000") == 1
    assert outcomes[1].ledger.sweep is not None
    assert outcomes[1].ledger.sweep.tags["group"] == "disc-ring"
    (alone,) = resume_sweeps("ring", home=home, console=console, training=TRAINING)
    assert alone.champion == outcomes[1].champion


def test_ctrl_c_ends_all_with_partial_results(configure: Any, dataset: Path, domain: Any, home: Home) -> None:
    class InterruptAt3(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            if "ring t0000[/] epoch 3/400" in str(objects):
                os.kill(os.getpid(), signal.SIGINT)
            super().print(*objects, **options)

    configs = configure(dataset, domain("ring"), overrides=("run.train.epochs=400", "scheduler.kind=none"))
    with Path(os.devnull).open("w") as nowhere:
        console = InterruptAt3(file=nowhere, record=True, width=160)
        outcomes = run_sweeps(configs, home=home, console=console, training="odd_training")
        assert [outcome.interrupted for outcome in outcomes] == [True, True]
        for outcome in outcomes:
            assert outcome.ledger.end is not None
            assert outcome.ledger.end.state == "KILLED"
            assert all(trial.end and trial.end.reason == "user" for trial in outcome.ledger.trials.values())
        with pytest.raises(typer.Exit):
            _show(outcomes, console)
        assert "infosam sweep --resume disc-ring" in console.export_text()


def test_resources_that_are_not_there_leave_nothing(
    configure: Any, dataset: Path, domain: Any, home: Home, console: Console
) -> None:
    configs = configure(dataset, domain("ring"), overrides=("resources.gpus_per_worker=1",))
    with pytest.raises(UserError, match="no node can hold one worker"):
        run_sweeps(configs, home=home, console=console, training=TRAINING)
    assert list(home.sweeps.iterdir()) == []
    assert not home.database.exists()


@pytest.mark.slow
def test_a_dry_run_measures_each_domain(
    configure: Any, dataset: Path, domain: Any, home: Home, console: Console
) -> None:
    configs = configure(dataset, domain("ring"), overrides=("run.model.image_px=64",))
    disc, ring = dry_run(configs, home=home, console=console)
    assert (disc.config.domain, ring.config.domain) == ("disc", "ring")
    assert ring.measured.cost.step_s > 0
    text = console.export_text()
    for words in (
        "Plan of a sweep over disc",
        "Plan of a sweep over ring",
        "All together: disc, ring",
        "of the domains in turn",
    ):
        assert words in text
    assert not home.folder.exists()


@pytest.mark.slow
def test_real_sweeps_end_with_a_champion_each(
    configure: Any, dataset: Path, domain: Any, home: Home, console: Console
) -> None:
    """Trained in one process in turn, and as it would have been alone: the file of a sweep repeats it, bit for bit."""
    from tune.study import Part, search

    overrides = (
        "run.model.image_px=64", "run.train.epochs=2", "run.train.batch_size=3", "scheduler.kind=none",
        "search.trials=1", "resources.slots=1",
    )  # fmt: skip
    outcomes = run_sweeps(configure(dataset, domain("ring"), overrides=overrides), home=home, console=console)
    assert all(outcome.promotion is not None for outcome in outcomes)
    assert {champion.domain for champion in champions()} == {
        outcome.domain for outcome in outcomes if outcome.promotion and outcome.promotion.promoted
    }
    plan = make_plan(load_sweep_config(outcomes[1].folder / SETTINGS_FILE), home)
    part = Part(plan=plan, ledger=Ledger())
    search([part], folder=plan.folder, slots=1)
    names = ("val/dice", "loss/total", "val/none/dice")
    assert rows(part.ledger, *names) == rows(outcomes[1].ledger, *names)
