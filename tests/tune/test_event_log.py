"""The log of a sweep: what is written comes back, one writer at a time, and damage is repaired or named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from infosam.errors import UserError
from tune.event_log import EventLog, is_written, read_events
from tune.events import EpochReported, Event, PromotionDecided, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from tune.ledger import Ledger


def sweep_start(**changes: object) -> SweepStarted:
    facts: dict[str, object] = {
        "sweep_id": "polyp-2",
        "domain": "polyp",
        "experiment": "infosam",
        "settings": "data: here\n",
        "params": {"train.epochs": 4},
        "tags": {"seed": "7"},
        "data": {"name": "polyp", "digest": "d1"},
        "zero_shot": {"val/box/dice": 0.5},
        "rungs": [2, 4],
        "at": 100.0,
    }
    return SweepStarted(**(facts | changes))  # type: ignore[arg-type]


def story() -> list[Event]:
    return [
        sweep_start(),
        TrialStarted(trial_id="t0000", values={"optim.lr": 1e-3, "peft.kind": "lora"}, at=101.5),
        EpochReported(
            trial_id="t0000", epoch=1, values={"val/dice": 0.25}, checkpoint="a\u00e9\nb", is_best=True, at=102.0
        ),
        TrialEnded(trial_id="t0000", state="FAILED", reason="error", error="broke", trace="line 1\nline 2", at=103.0),
        PromotionDecided(trial_id="t0000", promoted=False, model="m", version=None, reasons=["worse"], at=104.0),
        SweepEnded(state="FAILED", reason="error", note="# None", files=["overlay.png"], at=105.0),
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def written(path: Path, events: list[Event]) -> None:
    log = EventLog(path)
    for event in events:
        log(event)
    log.close()


def events_of(path: Path, offset: int = 0) -> list[Event]:
    return [event for event, _ in read_events(path, offset)]


def test_what_is_written_comes_back_with_its_times(path: Path) -> None:
    written(path, story())
    assert events_of(path) == story()
    times = [json.loads(line)["at"] for line in path.read_text().splitlines()]
    assert times == [100.0, 101.5, 102.0, 103.0, 104.0, 105.0]


def test_every_offset_goes_on_where_it_was_taken(path: Path) -> None:
    written(path, story())
    for number, (_, offset) in enumerate(read_events(path), start=1):
        assert events_of(path, offset) == story()[number:]


def test_the_ledger_of_a_log_is_the_ledger_of_its_events(path: Path) -> None:
    written(path, story())
    ledger = Ledger.replay(path)
    assert ledger.sweep == story()[0]
    assert ledger.end == story()[-1]
    assert ledger.promotion == story()[4]
    trial = ledger.trials["t0000"]
    assert (trial.score, trial.end) == (0.25, story()[3])


def test_a_resumed_sweep_and_its_trial_are_open_again() -> None:
    ledger = Ledger()
    for event in [*story(), sweep_start(resumed=True), story()[1]]:
        ledger(event)
    assert ledger.end is None
    assert ledger.trials["t0000"].end is None
    assert len(ledger.trials["t0000"].epochs) == 1


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_is_not_read_and_repaired_by_the_next_driver(path: Path, cut: int) -> None:
    written(path, story())
    whole = path.read_bytes()
    os.truncate(path, len(whole) - cut)
    assert events_of(path) == story()[:-1]
    written(path, [story()[-1]])
    assert path.read_bytes() == whole
    (torn,) = path.parent.glob("events.jsonl.torn-at-*")
    assert whole.endswith(torn.read_bytes() + whole[-cut:])


def test_a_last_line_with_a_wrong_checksum_is_torn_too(path: Path) -> None:
    written(path, story())
    damaged = path.read_bytes().replace(b"# None", b"# Nine")
    path.write_bytes(damaged)
    assert events_of(path) == story()[:-1]
    written(path, [])
    assert events_of(path) == story()[:-1]


def test_damage_in_the_middle_is_named_and_nothing_is_cut(path: Path) -> None:
    written(path, story())
    damaged = path.read_bytes().replace(b"0.25", b"0.75")
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"events\.jsonl, line 3: damaged"):
        events_of(path)
    with pytest.raises(UserError, match=r"events\.jsonl, line 3: damaged"):
        EventLog(path)
    assert path.read_bytes() == damaged


def test_a_second_driver_is_refused_while_the_first_lives(path: Path) -> None:
    log = EventLog(path)
    assert is_written(path)
    with pytest.raises(UserError, match="another process runs this sweep"):
        EventLog(path)
    log.close()
    assert not is_written(path)
    EventLog(path).close()


def test_a_reader_passes_over_what_a_newer_version_wrote(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tune.event_log as module

    written(path, story())
    kinds = {name: kind for name, kind in module.KINDS.items() if name != "PromotionDecided"}
    monkeypatch.setattr(module, "KINDS", kinds)
    assert events_of(path) == [event for event in story() if not isinstance(event, PromotionDecided)]


def test_what_a_full_disk_refused_is_written_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(path)
    log(story()[0])

    class Full:
        """A file that takes half a line."""

        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, line: bytes) -> int:
            return self.file.write(line[: len(line) // 2])  # type: ignore[attr-defined, no-any-return]

    whole = log._file
    monkeypatch.setattr(log, "_file", Full(whole))
    with pytest.raises(OSError, match="No space left on device"):
        log(story()[1])
    monkeypatch.setattr(log, "_file", whole)
    assert events_of(path) == story()[:1]
    log(story()[2])
    log.close()
    assert events_of(path) == story()[:3]
