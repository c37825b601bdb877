"""Tables and notes of a finished sweep."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tune.champions.promotion import Promotion
from tune.events import EpochReported, TrialEnded, TrialStarted
from tune.ledger import Ledger
from tune.note import note
from tune.results import Gain, SweepOutcome, closing_lines, gains_of, show_outcome
from tune.tracking import TrackingResult


def values(dice: float) -> dict[str, float]:
    keys = ("val/dice", "val/box/dice", "val/box/iou", "val/none/dice", "val/none/iou")
    return dict.fromkeys(keys, dice)


def finished_ledger() -> Ledger:
    ledger = Ledger()
    ledger(TrialStarted(trial_id="t0000", values={"peft.kind": "lora", "optim.lr": 1e-3}))
    ledger(TrialStarted(trial_id="t0001", values={"peft.kind": "adapter", "optim.lr": 1e-2}))
    ledger(TrialStarted(trial_id="t0002", values={"peft.kind": "adapter", "optim.lr": 2e-2}))
    for epoch, dice in enumerate([0.5, 0.7, 0.6], start=1):
        ledger(EpochReported(trial_id="t0000", epoch=epoch, values=values(dice), checkpoint=None, is_best=True))
    ledger(EpochReported(trial_id="t0001", epoch=1, values=values(0.4), checkpoint=None, is_best=True))
    ledger(EpochReported(trial_id="t0002", epoch=1, values=values(0.9), checkpoint=None, is_best=True))
    ledger(TrialEnded(trial_id="t0000", state="FINISHED", reason="completed"))
    ledger(TrialEnded(trial_id="t0001", state="KILLED", reason="early_stopped"))
    ledger(TrialEnded(trial_id="t0002", state="FAILED", reason="error", error="broke"))
    return ledger


def outcome() -> SweepOutcome:
    ledger = finished_ledger()
    return SweepOutcome(
        sweep_id="polyp-2",
        domain="polyp",
        folder=Path("sweeps/polyp-2"),
        tracking_uri="sqlite:///x",
        seed=7,
        ledger=ledger,
        champion=ledger.champion(),
        gains=gains_of(values(0.7), values(0.5), values(0.6), None),
        protocol="strict",
    )


def test_the_champion_is_the_best_epoch_of_a_trial_that_did_not_fail() -> None:
    champion = finished_ledger().champion()
    assert champion is not None
    assert champion.best is not None
    assert (champion.trial_id, champion.best.epoch) == ("t0000", 2)


def test_an_epoch_reported_again_after_a_restart_counts_once() -> None:
    ledger = finished_ledger()
    again = EpochReported(trial_id="t0000", epoch=3, values=values(0.65), checkpoint=None, is_best=False)
    ledger(again)
    assert ledger.trials["t0000"].epochs[-1] == again
    assert len(ledger.trials["t0000"].epochs) == 3


def test_gains_are_beside_zero_shot_and_trivial() -> None:
    rows = gains_of(values(0.7), values(0.5), values(0.6), None)
    assert [(row.split, row.prompt) for row in rows] == [("val", "box"), ("val", "none")]
    assert rows[0] == Gain(
        split="val", prompt="box", adapter=0.7, zero_shot=0.5, trivial=0.6, adapter_iou=0.7, zero_shot_iou=0.5,
        trivial_iou=0.6,
    )  # fmt: skip


def test_the_printed_result_says_who_what_and_how(console: Console) -> None:
    result = outcome()
    result.promotion = Promotion(promoted=True, model="infosam-polyp", version="1", reasons=("val dice 0.7 beats all",))
    show_outcome(console, result)
    text = console.export_text()
    for words in (
        "t0000", "lora, lr 0.001", "early stopped", "0.700", "+0.200", "truth box", "no prompt", "seed 7; strict",
        "infosam-polyp version 1", "infosam ui", "infosam predict --domain polyp",
    ):  # fmt: skip
        assert words in text


def test_what_went_wrong_is_said() -> None:
    result = outcome()
    result.promotion = Promotion(promoted=False, model="infosam-polyp", version="4", reasons=("does not beat [/b]",))
    result.tracking = TrackingResult(unwritten=3, error="refused")
    result.interrupted = True
    text = "\n".join(closing_lines(result))
    assert "Not promoted[/]: does not beat \\[/b]; kept as infosam-polyp version 4" in text
    assert "infosam champions show polyp" in text
    assert "lacks 3 records" in text
    assert "events.jsonl" in text
    assert "partial results; go on with infosam sweep --resume sweeps/polyp-2" in text
    assert "infosam predict" not in text


def test_what_could_not_be_registered_can_be_offered_again() -> None:
    result = outcome()
    result.unregistered, result.bundle = "nobody answers", Path("bundle")
    assert "Not registered[/]: nobody answers; offer it again with infosam sweep --resume" in closing_lines(result)[0]


def test_the_note_is_markdown_with_leaderboard_and_gain() -> None:
    text = note(outcome())
    assert "| t0000 | lora, lr 0.001 | 3 | completed | 0.700 | 0.700 |" in text
    assert "| val | truth box | 0.700 | 0.500 | 0.600 |" in text
