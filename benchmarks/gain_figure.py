"""Gains of pairs of arms as a picture: a dot for the mean, a line for its interval, a row for each domain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arm_gains import ArmScores
from compared_arms import POOLED, Pair
from svg_figure import COLOURS, svg_figure

PROMPTS = {"box": "box around the truth", "none": "no prompt"}


def draw_gains(scores: ArmScores, pairs: Sequence[Pair], out: Path) -> Path:
    """Writes one panel for each prompt to an SVG; gains are in points of Dice."""
    rows = [*scores.domains, POOLED]
    with svg_figure(out, (10, 1.6 + 0.17 * len(rows) * (len(pairs) + 1)), panels=len(PROMPTS)) as panels:
        for axes, (prompt, title) in zip(panels, PROMPTS.items(), strict=True):
            for number, pair in enumerate(pairs):
                shift = 0.8 * ((number + 0.5) / len(pairs) - 0.5)
                colour = COLOURS[(number + 1) % len(COLOURS)]
                for row, domain in enumerate(rows):
                    gain = scores.pooled(pair, prompt) if domain == POOLED else scores.gain(pair, prompt, domain)
                    if gain is None:
                        continue
                    mean, low, high, _ = gain.interval
                    label = str(pair) if domain == POOLED else None
                    axes.plot([100 * low, 100 * high], [row + shift] * 2, color=colour, linewidth=2, label=label)
                    axes.plot(100 * mean, row + shift, "o", color=colour, markersize=5)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set_title(title)
            axes.set_xlabel("gain in test Dice, points, 95 % interval over images and seeds")
            axes.set_yticks(range(len(rows)), [row.replace("_", " ") for row in rows])
            axes.grid(alpha=0.25, axis="x")
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        panels[0].legend(frameon=False, fontsize=9, loc="best")
    return out
