"""What the information terms saw while they trained: entropies of the relations of teacher and student and what the
two share, in bits, by epoch. Of runs that `does_infosam_help.py` made.

A relation of 0 bits is the same for every image of a batch: nothing in it is left to be shared with the student."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arm_runs import Trained
from svg_figure import COLOURS, svg_figure

CURVES = {
    "info/entropy_teacher": "entropy of the teacher's relation",
    "info/entropy_student": "entropy of the student's relation",
    "info/mutual_information": "shared by the two",
}


def information_curves(runs: Sequence[Trained], domain: str, arm: str) -> dict[str, list[float]] | None:
    """Of the names in `CURVES`, the mean over runs at each epoch (bits); None for an arm without information terms."""
    histories = [run.history for run in runs if (run.job.domain, run.job.arm) == (domain, arm) and run.best_epoch]
    if not histories or any(name not in epoch for name in CURVES for epoch in histories[0]):
        return None
    return {
        name: [round(statistics.fmean(one[name] for one in epochs), 4) for epochs in zip(*histories, strict=True)]
        for name in CURVES
    }


def draw_information(curves: Mapping[str, Mapping[str, Any]], arm: str, out: Path) -> Path:
    """Writes a panel for each name of `CURVES` with a line for each domain to an SVG.

    Args:
        curves: domain -> arm -> curves."""
    with svg_figure(out, (10, 3.4), panels=len(CURVES)) as panels:
        for axes, (name, title) in zip(panels, CURVES.items(), strict=True):
            for number, (domain, arms) in enumerate(curves.items()):
                if arm in arms:
                    values = arms[arm][name]
                    colour = COLOURS[(number + 1) % len(COLOURS)]
                    axes.plot(range(1, len(values) + 1), values, color=colour, label=domain.replace("_", " "))
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.25)
        panels[0].set_ylabel("bits")
        panels[0].set_ylim(bottom=0)
        panels[-1].legend(frameon=False, fontsize=9)
    return out
