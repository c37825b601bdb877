"""How repeats and twins are shown: a table in the terminal, Markdown and metrics in the parent run."""

from __future__ import annotations

import math

from rich.table import Table

from tune.finals import FinalResult, PairedGain, Repeated
from tune.terminal import describe_value

CONFIGURATION_HEADINGS = ("configuration of", "searched values", "mean", "sd", "seeds", "each seed")
NOT_CALLED_A_GAIN = "the interval holds 0, so these seeds do not show that the terms help or harm"


def finals_table(result: FinalResult) -> Table:
    """The configurations by their mean over seeds, and the winner's twin last."""
    title = f"Repeats: validation Dice over seeds; {result.challenger.trial_id} has the winner's median"
    table = Table(title=title, title_justify="left")
    for name in CONFIGURATION_HEADINGS[:2]:
        table.add_column(name, overflow="fold")
    for name in CONFIGURATION_HEADINGS[2:]:
        table.add_column(name, justify="right")
    for row in configuration_rows(result):
        table.add_row(*row)
    return table


def finals_note(result: FinalResult) -> list[str]:
    """Lines of Markdown for the parent run's description."""
    lines = ["", "### Repeats over seeds", "", f"| {' | '.join(CONFIGURATION_HEADINGS)} |"]
    lines.append("|" + "---|" * len(CONFIGURATION_HEADINGS))
    lines += [f"| {' | '.join(row)} |" for row in configuration_rows(result)]
    lines += ["", f"Validation Dice; {result.challenger.trial_id} has the winner's median and stands for it."]
    if (gain := describe_gain(result)) is not None:
        lines += ["", f"**What the information terms gave**: {gain}"]
    return lines


def configuration_rows(result: FinalResult) -> list[list[str]]:
    """One row for each configuration, best first, the winner's twin last; columns: CONFIGURATION_HEADINGS."""
    rows = [[one.origin, _values(one), *_figures(one)] for one in result.ranking]
    if result.twin is not None:
        rows.append([f"twin of {result.twin.origin}", "the same without information terms", *_figures(result.twin)])
    return rows


def describe_gain(result: FinalResult) -> str | None:
    """What the information terms gave, in a line; None where there was no twin."""
    gain = result.information_gain
    if gain is None:
        return None
    text = f"{gain.mean:+.4f} val Dice over the same configuration without them"
    if gain.seeds == 1:
        return f"{text}, with one seed only"
    text += f", 95 % interval {gain.low:+.4f} to {gain.high:+.4f} ({gain.seeds} seeds, paired)"
    return text if _excludes_zero(gain) else f"{text}: {NOT_CALLED_A_GAIN}"


def finals_metrics(result: FinalResult) -> dict[str, float]:
    """The same as metrics of the parent run; those that are not defined are left out."""
    values = {"final/val/dice_mean": result.winner.mean, "final/val/dice_sd": result.winner.spread}
    if result.twin is not None:
        values |= {"twin/val/dice_mean": result.twin.mean, "twin/val/dice_sd": result.twin.spread}
    if (gain := result.information_gain) is not None:
        values |= {f"delta/information/{name}": getattr(gain, name) for name in ("mean", "low", "high")}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _excludes_zero(gain: PairedGain) -> bool:
    return gain.low > 0 or gain.high < 0


def _values(one: Repeated) -> str:
    return ", ".join(describe_value(path, value) for path, value in one.values.items())


def _figures(one: Repeated) -> list[str]:
    seeds = f"{len(one.runs)}" + (f" ({one.failed} failed)" if one.failed else "")
    spread = "-" if math.isnan(one.spread) else f"{one.spread:.4f}"
    return [f"{one.mean:.4f}", spread, seeds, " ".join(f"{score:.3f}" for score in one.scores)]
