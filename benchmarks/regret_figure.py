"""Regret curves of replayed searches as a picture: the median and the band that holds 80 % of the replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from replay import Outcome
from svg_figure import COLOURS, svg_figure

BAND = (10, 90)


def draw_regret(found: Mapping[str, Sequence[Outcome]], out: Path) -> Path:
    """Writes one curve for each search, over epochs, to an SVG."""
    with svg_figure(out, (7, 4.2)) as axes:
        for (name, outcomes), colour in zip(found.items(), COLOURS, strict=False):
            epochs = np.arange(1, max(len(one.best) for one in outcomes) + 1)
            regret = np.array([[one.regret_after(int(epoch)) for epoch in epochs] for one in outcomes])
            low, high = np.percentile(regret, BAND, axis=0)
            axes.plot(epochs, np.median(regret, axis=0), color=colour, label=name, linewidth=2)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set_xlabel("epochs trained, all trials together")
        axes.set_ylabel("best known val Dice - best so far")
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_ylim(bottom=0)
        axes.set_xscale("log")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    return out
