"""Sweeps whose driver is killed or interrupted, and what `--resume` makes of them."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import processes_of
from ray.cluster_utils import Cluster
from rich.console import Console
from servers import mlflow_server
from sweep_check import check_resources, check_sweep, lasting_rows, rows

from infosam.errors import UserError
from tune.config import SweepConfig
from tune.event_log import NAME, read_events
from tune.events import EpochReported, Event, TrialStarted
from tune.home import Home
from tune.ledger import Ledger
from tune.runner import resume_sweep
from tune.trial_ids import role_of

TRAINING = "lasting_training"
RATES = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3]
PATIENCE_S = 240
GONE_S = 150.0
NOISE = re.compile(
    r"raylet|pid=|\bray::|ray\.(init|tune|train)|\b(INFO|WARNING|ERROR)\b|Warning:|Tune |Trial status|\[I \d"
)
"""What Ray, Optuna and Python say of themselves, which belongs behind -v."""

Configure = Callable[..., SweepConfig]
Spawn = Callable[..., "subprocess.Popen[str]"]
KilledAt = Callable[..., Ledger]
WaitFor = Callable[[Path, Callable[[Event], bool]], Event]


def at_epoch(trial_id: str, epoch: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, EpochReported) and (event.trial_id, event.epoch) == (trial_id, epoch)


def starts(folder: Path) -> Counter[str]:
    """How often each trial was started, once for each driver that ran it."""
    return Counter(event.trial_id for event, _ in read_events(folder / NAME) if isinstance(event, TrialStarted))


def test_a_sweep_goes_on_after_its_driver_was_killed(
    configure: Configure, home: Home, console: Console, killed_at: KilledAt
) -> None:
    folder = home.sweeps / "square"

    def resume_too_early() -> None:
        with pytest.raises(UserError, match="another process runs this sweep"):
            resume_sweep("square", home=home, console=console, training=TRAINING)

    before = killed_at(configure(RATES), at_epoch("t0002", 2), resume_too_early)
    assert before.end is None
    resume_sweep("square", home=home, console=console, training=TRAINING)
    ledger = check_sweep(folder, home.tracking_uri, trials=6)
    assert rows(ledger) == pytest.approx(lasting_rows(RATES))
    finished = [name for name, trial in before.trials.items() if trial.end]
    running = [name for name, trial in before.trials.items() if not trial.end]
    assert running
    assert starts(folder) == Counter([*ledger.trials, *running])
    assert all(ledger.trials[name] == before.trials[name] for name in finished)
    check_resources(2)
    size = (folder / NAME).stat().st_size
    outcome = resume_sweep("square", home=home, console=console, training=TRAINING)
    assert outcome.champion == ledger.champion()
    assert (folder / NAME).stat().st_size == size
    assert "nothing to do" in console.export_text()


def test_a_learning_search_that_stops_early_goes_on_with_what_it_knows(
    configure: Configure, home: Home, console: Console, killed_at: KilledAt
) -> None:
    """TPE and ASHA: as many trials as asked for, none that ended is run again, each rung has all of them."""
    folder = home.sweeps / "square"
    config = configure(
        [],
        space={"optim.lr": {"log_uniform": [1e-4, 1e-2]}},
        search={"trials": 8, "points": [], "startup_trials": 3},
        scheduler={"kind": "asha", "grace_epochs": 1, "reduction": 2},
    )
    before = killed_at(config, at_epoch("t0004", 1))
    resume_sweep("square", home=home, console=console, training=TRAINING)
    ledger = check_sweep(folder, home.tracking_uri, trials=8)
    assert starts(folder) == Counter([*ledger.trials, *(name for name, one in before.trials.items() if not one.end)])
    found = rows(ledger)
    rates = [trial.values["optim.lr"] for trial in ledger.trials.values()]
    assert found == pytest.approx({key: lasting_rows(rates)[key] for key in found})
    check_resources(2)


def test_repeats_and_twins_go_on_after_the_driver_was_killed(
    configure: Configure, home: Home, console: Console, killed_at: KilledAt
) -> None:
    folder = home.sweeps / "square"
    config = configure(RATES[:2], final={"top": 2, "seeds": 3, "twin": True})
    before = killed_at(config, at_epoch("r0000-s1", 2))
    outcome = resume_sweep("square", home=home, console=console, training=TRAINING)
    ledger = check_sweep(folder, home.tracking_uri, trials=2 + 4 + 3)
    assert Counter(role_of(name) for name in ledger.trials) == {"trial": 2, "repeat": 4, "twin": 3}
    assert {trial.end.reason for trial in ledger.trials.values() if trial.end} == {"completed"}
    for trial in ledger.trials.values():
        expected = {epoch: dice for (_, epoch), dice in lasting_rows([trial.values["optim.lr"]]).items()}
        assert {epoch.epoch: epoch.values["val/dice"] for epoch in trial.epochs} == pytest.approx(expected)
    running = [name for name, trial in before.trials.items() if not trial.end]
    assert "r0000-s1" in running
    assert starts(folder) == Counter([*ledger.trials, *running])
    assert outcome.finals is not None
    assert [one.origin for one in outcome.finals.ranking] == ["t0000", "t0001"]
    assert outcome.champion == outcome.finals.challenger
    check_resources(2)


def test_a_sweep_goes_on_from_its_bucket_after_its_head_was_lost(
    cluster: Cluster,
    configure: Configure,
    home: Home,
    spawn: Spawn,
    killed_at: KilledAt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With all that was on its disk; MLflow is on another machine, and knows its runs again."""
    with mlflow_server(f"sqlite:///{tmp_path / 'runs.db'}", tmp_path / "artifacts") as server:
        resources = {"mirror": f"file://{tmp_path / 'bucket'}"}
        before = killed_at(configure(RATES, tracking={"uri": server.uri}, resources=resources), at_epoch("t0002", 2))
        home.folder.rename(tmp_path / "lost")
        (address,) = (tmp_path / "bucket").iterdir()
        monkeypatch.setenv("INFOSAM_HOME", str(tmp_path / "other"))
        driver = spawn("sweep", "--resume", f"file://{address}", address=cluster.address)
        told, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, told
        assert f"infosam sweep --resume file://{address}" in told
        ledger = check_sweep(tmp_path / "other" / "sweeps" / "square", server.uri, trials=6)
    assert rows(ledger) == pytest.approx(lasting_rows(RATES))
    assert all(ledger.trials[name] == trial for name, trial in before.trials.items() if trial.end)
    assert not home.folder.exists()
    check_resources(2)


def test_an_interrupted_sweep_keeps_what_it_has_and_goes_on(
    cluster: Cluster,
    configure: Configure,
    home: Home,
    console: Console,
    spawn: Spawn,
    written: Callable[[SweepConfig], str],
    wait_for: WaitFor,
) -> None:
    folder = home.sweeps / "square"
    driver = spawn("sweep", written(configure(RATES[:4])), address=cluster.address)
    wait_for(folder, at_epoch("t0001", 2))
    driver.send_signal(signal.SIGTERM)
    output, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 130, output
    assert "infosam sweep --resume square" in output
    assert not NOISE.search(output), output
    before = Ledger.replay(folder / NAME)
    assert before.end is not None
    assert before.end.state == "KILLED"
    assert all(trial.end for trial in before.trials.values())
    assert ("KILLED", "user") in {(trial.end.state, trial.end.reason) for trial in before.trials.values() if trial.end}
    check_resources(2)
    resume_sweep("square", home=home, console=console, training=TRAINING)
    ledger = check_sweep(folder, home.tracking_uri, trials=4)
    assert rows(ledger) == pytest.approx(lasting_rows(RATES[:4]))
    check_resources(2)


def test_a_second_interruption_ends_everything_at_once(
    configure: Configure,
    home: Home,
    spawn: Spawn,
    written: Callable[[SweepConfig], str],
    wait_for: WaitFor,
) -> None:
    """On a Ray of its own, of which nothing is left."""
    config = configure([1e-3], run={"train": {"epochs": 400, "batch_size": 2}}, resources={"slots": 1})
    driver = spawn("sweep", written(config), address=None)
    wait_for(home.sweeps / "square", at_epoch("t0000", 1))
    assert len(processes_of(home)) > 3
    driver.send_signal(signal.SIGTERM)
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 130, output
    assert "--resume square" in output
    deadline = time.monotonic() + GONE_S
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
