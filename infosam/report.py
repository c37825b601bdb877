"""What `infosam evaluate` leaves: the table on screen, `scores.parquet` per image, and `report.html` with pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from infosam.assessment import MODELS, RANKED_BY, Assessment, Example
from infosam.bootstrap import CONFIDENCE, Interval
from infosam.data.prompts import box_of
from infosam.errors import DataError
from infosam.metrics import METRICS
from infosam.overlay import draw_overlay
from infosam.protocols import Prompt

SCORES_NAME = "scores.parquet"
PAGE_NAME = "report.html"
PICTURE_PX = 480
JPEG_QUALITY = 85


class ScoreTable(NamedTuple):
    """The scores under one prompt as text, one row per metric."""

    prompt: Prompt
    headings: list[str]
    rows: list[list[str]]


def score_tables(assessment: Assessment) -> list[ScoreTable]:
    """Metrics by models, for each prompt: means with intervals, and the paired gain over zero-shot SAM."""
    headings = ["metric", "adapter", "zero_shot", "gain", *MODELS[2:]]
    tables = []
    for prompt in assessment.protocol.prompts:
        rows = []
        for name, metric in METRICS.items():
            means = {model: assessment.interval(model, prompt, name) for model in MODELS[:2]}
            trivial = [f"{assessment.scores[model, prompt][name].mean():.4f}" for model in MODELS[2:]]
            shown = [*(_with_bounds(mean) for mean in means.values()), _with_bounds(assessment.gain(prompt, name), "+")]
            rows.append([f"{metric.title} {'↑' if metric.higher_is_better else '↓'}", *shown, *trivial])
        tables.append(ScoreTable(prompt, headings, rows))
    return tables


def print_tables(assessment: Assessment, console: Console) -> None:
    """The tables, and below them what they mean."""
    for table in score_tables(assessment):
        title = f"{assessment.split} split, prompt {table.prompt}, {len(assessment.ids)} images"
        shown = Table(title=title, title_justify="left")
        for heading in table.headings:
            shown.add_column(heading, justify="left" if heading == "metric" else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(f"{assessment.describe()}; [low, high]: {CONFIDENCE:.0%} bootstrap over images",
                  highlight=False, markup=False)  # fmt: skip


def check_out(out: Path) -> None:
    """Raises DataError if results cannot be written into this folder, before anything is computed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--out {out}: cannot be made a folder ({error.strerror or error}); choose another") from error


def write_report(assessment: Assessment, out: Path) -> tuple[Path, Path]:
    """Writes `scores.parquet` and `report.html` into a folder, in place of older ones. Raises DataError."""
    check_out(out)
    scores, page = out / SCORES_NAME, out / PAGE_NAME
    try:
        pq.write_table(score_rows(assessment), scores)
        page.write_text(render_page(assessment), encoding="utf-8")
    except OSError as error:
        raise DataError(f"--out {out}: cannot be written ({error.strerror or error}); choose another") from error
    return scores, page


def score_rows(assessment: Assessment) -> pa.Table:
    """One row per image, model and prompt: id, model, prompt, protocol, split and every metric as float64.

    The schema's metadata holds all switches of the protocol as JSON under the key `protocol`."""
    columns: dict[str, list[object]] = {name: [] for name in ("id", "model", "prompt", "protocol", "split", *METRICS)}
    for (model, prompt), values in assessment.scores.items():
        count = len(assessment.ids)
        columns["id"] += assessment.ids
        for name, value in (
            ("model", model), ("prompt", prompt), ("protocol", assessment.protocol.name), ("split", assessment.split),
        ):  # fmt: skip
            columns[name] += [value] * count
        for name in METRICS:
            columns[name] += values[name].tolist()
    table = pa.table(columns)
    return table.replace_schema_metadata({"protocol": assessment.protocol.model_dump_json()})


def render_page(assessment: Assessment) -> str:
    """The page as HTML without references to other files; all text from data is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((files("infosam") / "assets" / "report.html.jinja").read_text(encoding="utf-8"))
    prompt = assessment.protocol.prompts[0]
    ranking = f"by {METRICS[RANKED_BY].title} of the adapter, prompt {prompt}"
    chosen = {best: [example for example in assessment.examples if example.best is best] for best in (True, False)}
    domain = assessment.card.get("domain", "bundle")
    return template.render(
        title=f"{domain}: {assessment.split} split, {assessment.protocol.name} protocol",
        description=assessment.describe(),
        images=len(assessment.ids),
        confidence=f"{CONFIDENCE:.0%}",
        tables=[table._asdict() for table in score_tables(assessment)],
        box_drawn=prompt == "box",
        sections=[
            {"title": f"{word} {ranking}", "examples": [_shown(example, prompt) for example in chosen[best]]}
            for word, best in (("Best", True), ("Worst", False))
            if chosen[best]
        ],
    )


def _shown(example: Example, prompt: Prompt) -> dict[str, object]:
    truth = example.sample.mask
    box = box_of(torch.from_numpy(truth)).tolist() if prompt == "box" and truth.any() else None
    pictures = [
        {
            "source": _data_uri(draw_overlay(example.sample.image, np.asarray(mask), truth, box)),
            "caption": f"{name}, {METRICS[RANKED_BY].title} {example.scores[name]:.3f}",
        }
        for name, mask in example.masks.items()
    ]
    return {"id": example.sample.id, "pictures": pictures}


def _data_uri(picture: Image.Image) -> str:
    """A picture, at most `PICTURE_PX` on its longest side, as text that a page can hold."""
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _with_bounds(interval: Interval, sign: str = "") -> str:
    numbers: Sequence[str] = [f"{value:{sign}.4f}" for value in (interval.mean, interval.low, interval.high)]
    return numbers[0] if np.isnan(interval.low) else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"
