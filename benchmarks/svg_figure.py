"""Pictures of benchmarks as SVG: the same figures give the same file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COLOURS = ("#999999", "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9")
"""Told apart by the colour-blind too (Okabe and Ito)."""


@contextmanager
def svg_figure(out: Path, size_in: tuple[float, float], panels: int = 1) -> Iterator[Any]:
    """Gives matplotlib's axes to draw on, an array of them for several panels side by side, and writes `out`."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "infosam", "font.size": 11}):
        figure, axes = pyplot.subplots(1, panels, figsize=size_in, layout="constrained", sharey=True)
        yield axes
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, metadata={"Date": None})
        pyplot.close(figure)
