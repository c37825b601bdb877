"""The pages as HTML: everything they show is inside them, and all text from data is escaped."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import plotly.io
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tune.finals_report import CONFIGURATION_HEADINGS, configuration_rows
from tune.ledger import TrialRecord
from tune.note import PROMPTS
from tune.plan import write_whole
from tune.report import REPORT, plots, words
from tune.report.gains import PromptGain, describe_interval, gains, verdict_in_words
from tune.report.record import Record, epoch_seconds, open_record
from tune.report.regressions import worst_regressions
from tune.report.study import study_of
from tune.terminal import describe_value

SHOWN_TRIALS = 20
PLOT_SETTINGS = {"responsive": True, "displaylogo": False, "displayModeBar": False}


def write_report(record: Record) -> Path:
    """Writes the page of a sweep into its folder, whole or not at all. Raises UserError."""
    return _write(record.folder / REPORT, render("sweep", _sweep_context(record)))


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Writes the page of several sweeps. Raises UserError."""
    records = [open_record(folder) for folder in folders]
    return _write(out, render("comparison", _comparison_context(records)))


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page of `templates/`."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: _template(name)),
    )
    environment.filters["plot"] = _plot
    environment.globals["plotly"] = Markup(get_plotlyjs())
    page = environment.get_template(f"{template}.html.jinja").render(context)
    return page


def _template(name: str) -> str:
    return (files("tune.report") / "templates" / name).read_text(encoding="utf-8")


def _plot(plot: plots.Plot, minimum_px: int = 0) -> Markup:
    """A plot as part of the page, which scrolls in its own frame where it needs more than the page's width."""
    if isinstance(plot, str):
        return Markup('<p class="missing">{}</p>').format(plot)
    shown = plotly.io.to_html(
        plot, full_html=False, include_plotlyjs=False, config=PLOT_SETTINGS, default_height=plot.layout.height
    )
    return Markup(f'<div class="scroll"><div style="min-width: {minimum_px}px">{shown}</div></div>')


def _sweep_context(record: Record) -> dict[str, Any]:
    found = gains(record)
    first = found[0] if found else None
    started, study = record.started, study_of(record)
    return {
        "title": f"{started.domain}: sweep {record.name}",
        "when": _when(record),
        "state": _state(record),
        "verdicts": [verdict_in_words(gain) for gain in found] or ["There is no result: no trial gave a score."],
        "gains": [_gain_row(gain) for gain in found],
        "per_image": plots.gain_per_image(first),
        "regressions": worst_regressions(record, first),
        "information": words.information_terms(record),
        "configurations": configuration_rows(record.finals) if record.finals else [],
        "configuration_headings": CONFIGURATION_HEADINGS,
        "trials": [_trial_row(record, place, trial) for place, trial in enumerate(record.ledger.ranking(), 1)],
        "shown_trials": SHOWN_TRIALS,
        "curves": plots.learning_curves(record, study),
        "parallel": plots.parallel_coordinates(study),
        "importance": plots.importance(study),
        "pareto": plots.pareto(record),
        "second": plots.second_objective(record)[1],
        "plane": plots.information_plane(record),
        "conditional": sorted(path for path, one in record.space.items() if one.when),
        "cost": words.cost(record),
        "reasons": words.stop_reasons(record),
        "errors": words.errors(record),
        "recommendation": words.recommendation(record, found),
        "protocol": _protocol(record),
    }


def _comparison_context(records: Sequence[Record]) -> dict[str, Any]:
    found = {record.name: gains(record) for record in records}
    firsts = [(record.name, found[record.name][0]) for record in records if found[record.name]]
    return {
        "title": f"{len(records)} sweeps side by side",
        "overview": plots.gains_of_domains(firsts),
        "gains": [{"sweep": name, **_gain_row(gain)} for name, some in found.items() for gain in some],
        "sweeps": [
            {
                "name": record.name,
                "domain": record.started.domain,
                "state": _state(record),
                "verdicts": [verdict_in_words(gain) for gain in found[record.name]] or ["No trial gave a score."],
                "information": words.information_terms(record),
                "best": _values(record.champion) if record.champion else "-",
                "curves": plots.learning_curves(record, study_of(record)),
                "cost": words.cost(record),
                "recommendation": words.recommendation(record, found[record.name]),
                "protocol": _protocol(record),
            }
            for record in records
        ],
    }


def _gain_row(gain: PromptGain) -> dict[str, str]:
    return {
        "split": f"{gain.split}, {gain.images} images",
        "prompt": gain.prompted,
        "adapter": f"{gain.adapter:.3f}",
        "zero_shot": f"{gain.zero_shot:.3f}",
        "trivial": "-" if gain.trivial is None else f"{gain.trivial:.3f}",
        "over_zero_shot": describe_interval(gain.over_zero_shot),
        "over_trivial": describe_interval(gain.over_trivial),
    }


def _trial_row(record: Record, place: int, trial: TrialRecord) -> dict[str, str]:
    best, mean, size = trial.best, epoch_seconds(trial), record.size(trial)
    end = words.REASONS[trial.end.reason] if trial.end else "still runs"
    return {
        "place": str(place),
        "trial": trial.trial_id,
        **{prompt: _number(best.values.get(f"val/{prompt}/dice")) if best else "-" for prompt in PROMPTS},
        "score": _number(trial.score) if best else "-",
        "epoch": f"{best.epoch} of {len(trial.epochs)}" if best else "-",
        "end": end.partition(":")[0],
        "size": "-" if size is None else f"{size:.2f}",
        "seconds": "-" if mean is None else f"{mean:.1f}",
        "values": _values(trial),
    }


def _values(trial: TrialRecord) -> str:
    return ", ".join(describe_value(path, value) for path, value in trial.values.items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _when(record: Record) -> str:
    began = datetime.datetime.fromtimestamp(record.began_at, datetime.UTC)
    return f"{began:%Y-%m-%d %H:%M} UTC, {words.duration(record.last_at - record.began_at)}"


def _state(record: Record) -> str:
    end = record.ledger.end
    if end is None:
        return "it runs, or its driver died"
    told = {"FINISHED": "finished", "KILLED": "interrupted", "FAILED": "failed"}[end.state]
    return f"{told}: {record.ledger.budget}" if record.ledger.budget else told


def _protocol(record: Record) -> str:
    tags, data = record.started.tags, record.started.data
    counts = ", ".join(f"{count} {split}" for split, count in data.get("counts", {}).items())
    return (
        f"{tags.get('protocol', 'unknown protocol')}; backbone {tags.get('backbone', 'unknown')}; seed "
        f"{tags.get('seed', '?')}; images {data.get('name', '?')} ({counts}), digest "
        f"{str(data.get('digest', ''))[:12]}; code {tags.get('commit', 'unknown')}"
    )


def _write(out: Path, page: str) -> Path:
    write_whole(out, page, cure="make room, or choose another place")
    return out
