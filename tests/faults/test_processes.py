"""Trials that go wrong, and processes of a sweep that are killed while its driver lives."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import is_gone, slot_process
from ray.cluster_utils import Cluster
from rich.console import Console
from servers import mlflow_server
from sweep_check import check_resources, check_sweep, lasting_rows, rows

from tune import watchdog
from tune.config import SweepConfig
from tune.event_log import NAME, read_events
from tune.events import EpochReported, Event, TrialRetried, TrialStarted
from tune.home import Home
from tune.ledger import Ledger
from tune.runner import resume_sweep, run_sweep

TRAINING = "lasting_training"
RATES = [1e-3, 2e-3, 3e-3, 4e-3]
RESTART_S = 240.0
LONG_EPOCHS, LONGER_EPOCHS = 30, 80
"""Of trials that must still run when a slot was replaced, and when the loss of a node was noticed: some ten seconds."""
STEP_S = 45.0
"""For one epoch where processes are stopped; starting a slot must take less."""

Configure = Callable[..., SweepConfig]
WaitFor = Callable[[Path, Callable[[Event], bool]], Event]
Once = Callable[[Path, Callable[[Event], bool], Callable[[Event], Any]], threading.Thread]


def sweep(config: SweepConfig, home: Home, console: Console, cpus: float = 2) -> Ledger:
    """Runs it, and checks that it left everything in order."""
    outcome = run_sweep(config, home=home, console=console, training=TRAINING)
    ledger = check_sweep(outcome.folder, outcome.tracking_uri, trials=config.search.trials)
    check_resources(cpus)
    return ledger


def reasons(ledger: Ledger) -> list[str]:
    return [trial.end.reason if trial.end else "none" for _, trial in sorted(ledger.trials.items())]


def at_epoch(trial_id: str, epoch: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, EpochReported) and (event.trial_id, event.epoch) == (trial_id, epoch)


@pytest.mark.usefixtures("cluster")
def test_undisturbed_sweeps_give_the_rows_that_disturbed_ones_must(
    configure: Configure, home: Home, console: Console
) -> None:
    ledger = sweep(configure(RATES), home, console)
    assert reasons(ledger) == ["completed"] * 4
    assert rows(ledger) == pytest.approx(lasting_rows(RATES))


@pytest.mark.usefixtures("cluster")
def test_trials_that_go_wrong_fail_alone(configure: Configure, home: Home, console: Console) -> None:
    """One raises, one gives NaN, one runs out of memory by exception, one is killed for it every time."""
    rates = [1e-3, 0.5, 0.6, 0.3, 0.2, 2e-3]
    ledger = sweep(configure(rates, resources={"max_failures": 1}), home, console)
    assert reasons(ledger) == ["completed", "error", "error", "error", "error", "completed"]
    errors = [trial.end.error or "" if trial.end else "" for _, trial in sorted(ledger.trials.items())]
    for error, words in zip(errors[1:5], ["this is where it breaks", "is nan", "out of memory", "died"], strict=True):
        assert words in error
    sound = lasting_rows([1e-3, 2e-3]) | {(rate, 1): dice for (rate, _), dice in lasting_rows(rates[1:5], 1).items()}
    assert rows(ledger) == pytest.approx(sound)


@pytest.mark.usefixtures("cluster")
def test_a_killed_training_process_goes_on_from_its_checkpoint(
    configure: Configure, home: Home, console: Console, once: Once
) -> None:
    def kill(event: Event) -> None:
        assert isinstance(event, EpochReported)
        os.kill(int(event.values["worker"]), signal.SIGKILL)

    once(home.sweeps / "square", at_epoch("t0001", 2), kill)
    ledger = sweep(configure(RATES), home, console)
    assert reasons(ledger) == ["completed"] * 4
    assert rows(ledger) == pytest.approx(lasting_rows(RATES))
    assert len({epoch.values["worker"] for epoch in ledger.trials["t0001"].epochs}) == 2
    assert [retry.error for retry in ledger.trials["t0001"].retries] == ["a training process of the trial died"]


@pytest.mark.usefixtures("cluster")
def test_the_trial_of_a_killed_slot_goes_on_in_another(
    configure: Configure, home: Home, console: Console, once: Once
) -> None:
    """There is one slot, so that the one that is killed has a trial."""
    retried: list[str] = []
    once(home.sweeps / "square", at_epoch("t0001", 2), lambda event: os.kill(slot_process(), signal.SIGKILL))
    once(home.sweeps / "square", lambda event: isinstance(event, TrialRetried), lambda event: retried.append("yes"))
    ledger = sweep(configure(RATES, resources={"slots": 1}), home, console)
    assert reasons(ledger) == ["completed"] * 4
    assert rows(ledger) == pytest.approx(lasting_rows(RATES))
    assert retried


@pytest.mark.usefixtures("cluster")
def test_a_learning_search_loses_and_repeats_no_trial_with_its_processes(
    configure: Configure, home: Home, console: Console, once: Once
) -> None:
    """TPE and ASHA; a training process is killed, and later a slot, between two trials or at the start of one."""

    def kill_worker(event: Event) -> None:
        assert isinstance(event, EpochReported)
        os.kill(int(event.values["worker"]), signal.SIGKILL)

    folder = home.sweeps / "square"
    once(folder, at_epoch("t0000", 2), kill_worker)
    once(folder, at_epoch("t0004", 1), lambda event: os.kill(slot_process(), signal.SIGKILL))
    config = configure(
        [],
        space={"optim.lr": {"log_uniform": [1e-4, 1e-2]}},
        search={"trials": 7, "points": [], "startup_trials": 3},
        scheduler={"kind": "asha", "grace_epochs": 1},
        resources={"slots": 1},
    )
    ledger = sweep(config, home, console)
    assert ledger.trials["t0000"].retries
    assert sum(len(trial.retries) for trial in ledger.trials.values()) <= 2  # a slot between two trials costs none
    started = [event.trial_id for event, _ in read_events(folder / NAME) if isinstance(event, TrialStarted)]
    assert started == sorted(ledger.trials)
    found = rows(ledger)
    rates = [trial.values["optim.lr"] for trial in ledger.trials.values()]
    assert found == pytest.approx({key: lasting_rows(rates)[key] for key in found})


@pytest.mark.usefixtures("cluster")
def test_processes_that_stand_still_are_noticed(
    configure: Configure, home: Home, console: Console, once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They neither end nor answer: a training process, which its slot gives up, and a slot, which the driver does.

    There is one slot, so that the one that stands still has a trial."""
    monkeypatch.setattr(watchdog, "GRACE_S", 5.0)
    stopped: list[int] = []

    def stop(process: int) -> None:
        os.kill(process, signal.SIGSTOP)
        stopped.append(process)

    def stop_worker(event: Event) -> None:
        assert isinstance(event, EpochReported)
        stop(int(event.values["worker"]))

    folder, rates = home.sweeps / "square", [*RATES, 5e-3]
    once(folder, at_epoch("t0001", 2), lambda event: stop(slot_process()))
    once(folder, at_epoch("t0003", 2), stop_worker)
    try:
        resources = {"step_timeout_s": STEP_S, "max_failures": 2, "slots": 1}
        ledger = sweep(configure(rates, resources=resources), home, console)
        assert reasons(ledger) == ["completed"] * 5
        assert rows(ledger) == pytest.approx(lasting_rows(rates))
        assert len(stopped) == 2
        assert all(is_gone(process) for process in stopped)
    finally:
        for process in stopped:
            if not is_gone(process):
                os.kill(process, signal.SIGKILL)
    assert sum(len(trial.retries) for trial in ledger.trials.values()) == 2


def test_a_place_that_cannot_train_costs_no_trial(
    cluster: Cluster,
    configure: Configure,
    home: Home,
    console: Console,
    once: Once,
    dataset: Path,
    tmp_path: Path,
) -> None:
    """Every slot on one of the nodes fails when it starts, at once, while those of the other are busy until it has."""
    data = shutil.copytree(dataset, tmp_path / "square")
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    (data / "BROKEN").write_text(node.node_id)
    home.folder.mkdir(parents=True)
    folder = home.sweeps / "square"
    failures: set[float] = set()

    def failed_twice(event: Event) -> bool:
        if isinstance(event, TrialRetried):
            failures.add(event.at)
        return len(failures) > 1

    once(folder, lambda event: isinstance(event, TrialStarted), lambda _: (folder / "hold").touch())
    once(folder, failed_twice, lambda _: (folder / "hold").unlink())
    try:
        with mlflow_server(f"sqlite:///{home.database}", home.artifacts) as server:
            resources, run = {"slots": 3, "max_failures": 1}, {"train": {"epochs": LONG_EPOCHS, "batch_size": 2}}
            config = configure(RATES, data=data, run=run, tracking={"uri": server.uri}, resources=resources)
            ledger = sweep(config, home, console, cpus=3)
    finally:
        cluster.remove_node(node)
    assert reasons(ledger) == ["completed"] * 4
    assert rows(ledger) == pytest.approx(lasting_rows(RATES, LONG_EPOCHS))
    told = [retry.error for trial in ledger.trials.values() for retry in trial.retries]
    assert len(told) >= 2
    assert all(f"cannot start on node {node.node_id}: RuntimeError: this GPU is broken" in error for error in told)


def test_neither_a_lost_node_nor_a_dead_tracking_server_costs_a_row(
    cluster: Cluster, configure: Configure, home: Home, console: Console, once: Once, wait_for: WaitFor
) -> None:
    """The raylet of a node is killed under a slot; the server, too, and comes back before the sweep ends."""
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    home.folder.mkdir(parents=True)
    folder = home.sweeps / "square"
    with mlflow_server(f"sqlite:///{home.database}", home.artifacts) as server:

        def lose(event: Event) -> None:
            server.kill()
            os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
            wait_for(folder, at_epoch("t0004", 1))
            server.start()

        back = once(folder, at_epoch("t0002", 2), lose)
        run = {"train": {"epochs": LONGER_EPOCHS, "batch_size": 2}}
        config = configure([*RATES, 5e-3, 6e-3], run=run, tracking={"uri": server.uri}, resources={"slots": 3})
        run_sweep(config, home=home, console=console, training=TRAINING)
        back.join(RESTART_S)
        resume_sweep("square", home=home, console=console, training=TRAINING)  # for a server that came back too late
        ledger = check_sweep(folder, server.uri, trials=6)
        check_resources(2)
    cluster.remove_node(node, allow_graceful=False)
    assert reasons(ledger) == ["completed"] * 6
    assert rows(ledger) == pytest.approx(lasting_rows([*RATES, 5e-3, 6e-3], LONGER_EPOCHS))
    assert any(trial.retries for trial in ledger.trials.values())
