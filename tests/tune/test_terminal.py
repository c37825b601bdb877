"""What a person sees of a sweep, in a terminal and in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tune.events import EpochReported, Event, TrialEnded, TrialRetried, TrialStarted
from tune.terminal import Standing, Terminal, describe_seconds


def epoch(trial_id: str, number: int, dice: float) -> EpochReported:
    return EpochReported(trial_id=trial_id, epoch=number, values={"val/dice": dice}, checkpoint=None, is_best=True)


STORY: list[tuple[float, Event]] = [
    (0, TrialStarted(trial_id="t0000", values={"peft.kind": "lora", "peft.rank": 4})),
    (1, TrialStarted(trial_id="t0001", values={"peft.kind": "adapter"})),
    (10, epoch("t0000", 1, 0.5)),
    (12, epoch("t0001", 1, 0.75)),
    (14, TrialEnded(trial_id="t0000", state="KILLED", reason="early_stopped")),
    (15, TrialStarted(trial_id="t0002", values={"peft.kind": "lora", "peft.rank": 8})),
    (16, TrialRetried(trial_id="t0001", error="node [lost]")),
    (20, TrialEnded(trial_id="t0002", state="FAILED", reason="error", error="out of memory")),
]  # fmt: skip


class Screen:
    """A terminal of 120 columns whose time is told by the story."""

    def __init__(self, *others: str, is_terminal: bool) -> None:
        self.now = 0.0
        self.console = Console(file=io.StringIO(), record=True, width=120, force_terminal=is_terminal)
        standings = {"disc": Standing(zero_shot=0.25)} | {domain: Standing() for domain in others}
        self.terminal = Terminal(
            self.console, trials=6, epochs=4, slots=2, standings=standings, clock=lambda: self.now
        )  # fmt: skip
        self.hear = self.terminal.of("disc")

    def play(self) -> None:
        for self.now, event in STORY:
            self.hear(event)

    def table(self) -> str:
        drawn = Console(file=io.StringIO(), width=120, force_terminal=False)
        drawn.print(self.terminal.table())
        text: str = drawn.file.getvalue()  # type: ignore[attr-defined]
        return text


def test_the_table_shows_every_slot_and_the_whole() -> None:
    screen = Screen(is_terminal=True)
    assert "starting workers" in screen.table()
    screen.play()
    lines = [" ".join(line.split()) for line in screen.table().splitlines()]
    assert lines == [
        "slot trial epoch val dice time searched",
        "0 free",
        "1 t0001 restarting 0.750 19 s adapter",
        "2 of 6 trials done, 1 running, 1 stopped, 1 failed, best 0.750 (t0001, +0.500 over zero-shot), "
        "about 40 s left",
    ]


def test_a_slot_that_comes_back_shows_its_epoch_again() -> None:
    screen = Screen(is_terminal=True)
    screen.play()
    screen.hear(epoch("t0001", 2, 0.7))
    assert "2/4" in screen.table()
    assert "restarting" not in screen.table()


def test_above_the_table_only_what_it_does_not_show() -> None:
    screen = Screen(is_terminal=True)
    screen.play()
    assert screen.console.export_text().splitlines() == [
        "t0000 early stopped  val dice 0.500 after epoch 1",
        "t0001 lost its process and goes on in another: node [lost]",
        "t0002 error: out of memory",
    ]


def test_a_pipe_gets_plain_lines_and_no_control_characters() -> None:
    screen = Screen(is_terminal=False)
    with screen.terminal:
        screen.play()
    written = screen.console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in written
    assert written.splitlines()[:4] == [
        "t0000 starts: lora, rank 4",
        "t0001 starts: adapter",
        "t0000 epoch 1/4  val dice 0.500  best 0.500 (t0000, +0.250 over zero-shot)",
        "t0001 epoch 1/4  val dice 0.750  best 0.750 (t0001, +0.500 over zero-shot)",
    ]


def test_the_table_is_drawn_in_a_terminal_and_gone_at_the_end() -> None:
    screen = Screen(is_terminal=True)
    with screen.terminal:
        screen.play()
        screen.terminal._live.refresh()
    written = screen.console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 of 6 trials done" in written
    assert written.rstrip("\n").endswith("\x1b[?25h") or "\x1b[2K" in written


def test_more_trials_than_slots_are_shown_all_the_same() -> None:
    screen = Screen(is_terminal=True)
    for number in range(3):
        screen.hear(TrialStarted(trial_id=f"t000{number}", values={}))
    assert "t0002" in screen.table()


def test_several_domains_are_kept_apart() -> None:
    """Their trials have the same names, and each domain has a best of its own."""
    screen = Screen("square", is_terminal=True)
    screen.play()
    square = screen.terminal.of("square")
    square(TrialStarted(trial_id="t0001", values={}))
    square(epoch("t0001", 3, 0.5))
    lines = [" ".join(line.split()) for line in screen.table().splitlines()]
    assert [line.split(" 0.")[0] for line in lines[1:3]] == ["0 square t0001 3/4", "1 disc t0001 restarting"]
    summary = " ".join(lines[3:])
    assert "disc best 0.750 (t0001, +0.500 over zero-shot), square best 0.500 (t0001)" in summary
    assert "2 of 6 trials done, 2 running" in summary


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text
