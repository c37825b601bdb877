"""What the parent run of a sweep says in MLflow: Markdown with leaderboard, gains, decision, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune.finals_report import finals_note
from tune.ledger import Ledger
from tune.terminal import describe_value

if TYPE_CHECKING:
    from tune.results import SweepOutcome

PROMPTS = {"box": "truth box", "none": "no prompt"}
LONGEST_LEADERBOARD = 20


def note(outcome: SweepOutcome) -> str:
    """The whole note of a sweep whose driver came to its end."""
    lines = [f"## Sweep {outcome.sweep_id}", "", *leaderboard(outcome.ledger)]
    if outcome.finals is not None:
        lines += finals_note(outcome.finals)
    if outcome.gains:
        lines += [
            "",
            f"### What was gained by {outcome.champion.trial_id if outcome.champion else ''}",
            "",
            "| split | prompt | adapter | zero-shot | best trivial | gain over zero-shot |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {gain.split} | {PROMPTS[gain.prompt]} | {gain.adapter:.3f} | {gain.zero_shot:.3f} | "
            f"{gain.trivial:.3f} | {gain.adapter - gain.zero_shot:+.3f} |"
            for gain in outcome.gains
        ]
        lines += ["", f"Mean Dice. Seed {outcome.seed}; {outcome.protocol}"]
    if outcome.promotion:
        word = "Promoted" if outcome.promotion.promoted else "Not promoted"
        lines += ["", f"**{word}**: {'; '.join(outcome.promotion.reasons)}"]
    elif outcome.unregistered:
        lines += ["", f"**Not registered**: {outcome.unregistered}"]
    return "\n".join([*lines, *commands(outcome.ledger)])


def unfinished_note(ledger: Ledger) -> str:
    """The note of a sweep whose driver died; all that its log tells."""
    assert ledger.sweep is not None
    return "\n".join(
        [
            f"## Sweep {ledger.sweep.sweep_id}",
            "",
            "**The driver died.** The sweep can go on, see below.",
            "",
            *leaderboard(ledger),
            *commands(ledger),
        ]
    )


def leaderboard(ledger: Ledger) -> list[str]:
    """The best trials of the search as a Markdown table."""
    lines = ["| trial | values | epochs | end | val dice box | no prompt |", "|---|---|---|---|---|---|"]
    for trial in ledger.ranking()[:LONGEST_LEADERBOARD]:
        values = ", ".join(describe_value(path, value) for path, value in trial.values.items())
        scores = [_number(trial.best.values.get(f"val/{prompt}/dice")) if trial.best else "-" for prompt in PROMPTS]
        end = trial.end.reason if trial.end else "user"
        lines.append(f"| {trial.trial_id} | {values} | {len(trial.epochs)} | {end} | {' | '.join(scores)} |")
    return lines


def commands(ledger: Ledger) -> list[str]:
    """How to go on with the sweep, do it again, and use what it found; nothing before it began."""
    sweep = ledger.sweep
    if sweep is None:
        return []
    return [
        "",
        "### Commands",
        "",
        "```bash",
        f"infosam sweep --resume {sweep.sweep_id}    # go on; a sweep that is over only shows its result",
        "infosam sweep sweep.yaml    # do it again, with the file from the artifacts of this run and the code of "
        f"commit {sweep.tags.get('commit', 'unknown')}",
        f"infosam predict --domain {sweep.domain} IMAGES --out DIR    # masks by the domain's champion",
        "```",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
