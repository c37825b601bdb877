"""A sweep over three machines with an address each, while one is killed, one joins, one is cut off from the network for
half a minute, the tracking server is away, and the object store with the checkpoints is slow and fails. Nothing is
lost, nothing is doubled, all trials finish; and each machine has a copy of what its trials share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from lasting_training import MADE_ROWS, machine_number
from machines import RAY_PORT, Machine, Network, start_ray
from object_store import ObjectStore, object_store
from servers import mlflow_server
from sweep_check import check_sweep, lasting_rows, rows

from infosam.tensor_store import open_sound
from tune.event_log import NAME, read_events
from tune.events import EpochReported, Event

DRIVER = Path(__file__).parents[1] / "faults" / "driver.py"
RATES = [number / 10_000 for number in range(10, 24)]
EPOCHS = 4
EPOCH_S = 0.5
GATED_FROM = RATES[8]
"""Trials from here on wait in their second epoch until all has happened, however long a busy machine takes for it."""
SLOW_S = 0.1
"""Of the object store, before each answer; an epoch takes some five of them."""
CUT_OFF_S = 30
PATIENCE_S = 300
HEALTH = (
    '{"health_check_initial_delay_ms":2000,"health_check_period_ms":1000,"health_check_timeout_ms":3000,'
    '"health_check_failure_threshold":5}'
)
"""A machine that does not answer is missed after 20 s. By default Ray waits for each answer for 10 s, and one that is
cut off for half a minute may come back before it is missed."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Log:
    """The sweep's log, as it grows."""

    def __init__(self, folder: Path, driver: subprocess.Popen[str]) -> None:
        self.folder, self._driver = folder, driver

    def reports(self) -> list[EpochReported]:
        path = self.folder / NAME
        events: list[Event] = [event for event, _ in read_events(path)] if path.exists() else []
        return [event for event in events if isinstance(event, EpochReported)]

    def until(self, wanted: Callable[[EpochReported], bool], *, after: int = 0) -> int:
        """Waits for a report that came after so many; how many there are then."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            reports = self.reports()
            if any(wanted(report) for report in reports[after:]):
                return len(reports)
            assert self._driver.poll() is None, self._driver.communicate()[0]
            time.sleep(0.2)
        raise AssertionError(f"waited in vain; {len(reports)} epochs were reported")


def on(machine: str) -> Callable[[EpochReported], bool]:
    return lambda report: report.values["machine"] == machine_number(machine)


def stored_on(machine: Machine, home: Path) -> dict[str, str]:
    """Names and sums of the stores that a machine has."""
    folder = home / "encodings" / machine.name
    listed = machine.run("sh", "-c", f"cd {folder} && sha256sum *.arrow && ! ls *.part").stdout
    return {name: digest for digest, name in (line.split() for line in listed.splitlines())}


def check_copies(copies: Sequence[Mapping[str, str]], home: Path) -> None:
    """Three stores, the same on all machines, and whole."""
    assert len(copies[0]) == 3
    assert all(copy == copies[0] for copy in copies)
    for name in copies[0]:
        assert open_sound(home / "encodings" / "head" / name, rows=MADE_ROWS) is not None


def made_by(record: Path) -> Counter[str]:
    """How many different rows were made by the machines that were there from the start, together, and by the late one.
    None of them was made twice."""
    lines: Counter[str] = Counter()
    for line in record.read_text().splitlines():
        host, row = line.split(maxsplit=1)
        lines[f"{host if host == 'late' else 'all'} {row}"] += 1
    assert set(lines.values()) == {1}, lines
    return Counter(line.split()[0] for line in lines)


@pytest.fixture
def head(net: Network) -> Machine:
    return net.machine("head")


@pytest.fixture
def store(head: Machine) -> Iterator[ObjectStore]:
    """An object store that is slow, on the head."""
    with ExitStack() as stack:
        with head.inside():
            store = stack.enter_context(object_store("lab", host=head.address))
        store.trouble.delay_s = SLOW_S
        yield store


@pytest.fixture
def environment(plain: Mapping[str, str], head: Machine, store: ObjectStore, tmp_path: Path) -> dict[str, str]:
    """Of all that runs on these machines."""
    (tmp_path / "results").mkdir()
    return {
        **plain,
        **store.environment,
        "RAY_ADDRESS": f"{head.address}:{RAY_PORT}",
        "RAY_AUTH_MODE": "disabled",
        "INFOSAM_HOME": str(tmp_path / "results"),
        "LASTING_EPOCH_S": str(EPOCH_S),
        "LASTING_GATE": str(tmp_path / "gate"),
        "LASTING_MADE": str(tmp_path / "made"),
        "LASTING_GATED_FROM": str(GATED_FROM),
    }


@pytest.fixture
def workers(net: Network, head: Machine, environment: Mapping[str, str]) -> Mapping[str, Machine]:
    """Two nodes of one processor beside the head's, and a machine that is not part of the cluster yet; each has a
    results folder of its own, so that checkpoints reach another machine by the object store only."""
    start_ray(head, f"--system-config={HEALTH}", environment=environment)
    found = {name: net.machine(name) for name in ("one", "two", "late")}
    for machine in found.values():
        machine.run("mount", "-t", "tmpfs", "tmpfs", environment["INFOSAM_HOME"])
    for name in ("one", "two"):
        start_ray(found[name], head=head, environment=environment)
    return found


def test_a_sweep_survives_all_that_happens_to_its_machines(
    head: Machine,
    workers: Mapping[str, Machine],
    store: ObjectStore,
    environment: Mapping[str, str],
    square: Path,
    tmp_path: Path,
) -> None:
    home = Path(environment["INFOSAM_HOME"])
    with ExitStack() as stack:
        with head.inside():
            server = stack.enter_context(mlflow_server(f"sqlite:///{home / 'runs.db'}", home / "artifacts"))
        config = tmp_path / "sweep.yaml"
        settings = {
            "data": str(square),
            "run": {"train": {"epochs": EPOCHS, "batch_size": 2}},
            "space": {"optim.lr": {"choice": RATES}},
            "search": {"trials": len(RATES), "points": [{"optim.lr": rate} for rate in RATES]},
            "scheduler": {"kind": "none"},
            "warm_start": "off",
            "resources": {"max_failures": 1, "mirror": store.uri("lab/checkpoints")},
            "tracking": {"uri": server.uri},
        }
        config.write_text(yaml.safe_dump(settings))
        driver = head.start(
            sys.executable, str(DRIVER), "lasting_training", "sweep", str(config),
            environment=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        stack.enter_context(driver)  # waits for it, and closes its output
        stack.callback(driver.kill)
        log = Log(home / "sweeps" / "square", driver)

        log.until(on("one"))
        count = log.until(on("two"))
        copies = [stored_on(machine, home) for machine in (head, workers["one"], workers["two"])]
        assert made_by(tmp_path / "made") == {"all": 3 * MADE_ROWS}
        workers["one"].kill()
        server.kill()
        store.trouble.failures = 20
        start_ray(workers["late"], head=head, environment=environment)
        log.until(on("late"), after=count)
        workers["two"].unplug()
        time.sleep(CUT_OFF_S)
        workers["two"].plug()
        with head.inside():
            server.start()
        Path(environment["LASTING_GATE"]).touch()
        told, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, told
        copies.append(stored_on(workers["late"], home))
        with head.inside():
            ledger = check_sweep(log.folder, server.uri, trials=len(RATES))
    assert rows(ledger) == pytest.approx(lasting_rows(RATES, EPOCHS))
    assert {trial.end.reason for trial in ledger.trials.values() if trial.end} == {"completed"}
    lost = [error for trial in ledger.trials.values() for error in trial.retries]
    assert len(lost) >= 2  # of the machine that was killed, and of the one that was cut off
    check_copies(copies, home)
    assert made_by(tmp_path / "made") == {"all": 3 * MADE_ROWS, "late": 3 * MADE_ROWS}
