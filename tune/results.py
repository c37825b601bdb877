"""What a finished sweep shows: the leaderboard, what was gained, a picture, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tune.champions.promotion import Promotion
from tune.champions.rule import describe
from tune.finals import FinalResult
from tune.finals_report import describe_gain, finals_table
from tune.home import find_home
from tune.ledger import Ledger, TrialRecord
from tune.note import PROMPTS
from tune.report import REPORT
from tune.terminal import STYLES, describe_value
from tune.tracking import TrackingResult

if TYPE_CHECKING:
    from infosam.config import ModelConfig
    from infosam.evaluation import EvaluationTable

OVERLAY_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Mean scores of one split and prompt: the adapter beside what was there without it."""

    split: str
    prompt: str
    adapter: float
    zero_shot: float
    trivial: float
    adapter_iou: float
    zero_shot_iou: float
    trivial_iou: float


@dataclass(kw_only=True)
class SweepOutcome:
    """Everything a sweep found."""

    sweep_id: str
    domain: str
    folder: Path
    tracking_uri: str
    seed: int
    ledger: Ledger
    interrupted: bool = False
    finals: FinalResult | None = None  # repeats over seeds, if any were asked for
    champion: TrialRecord | None = None
    bundle: Path | None = None
    gains: Sequence[Gain] = ()
    measured: Mapping[str, float] = field(default_factory=dict)  # "box/s_measure": what else is known of it on test
    protocol: str = ""
    promotion: Promotion | None = None
    unregistered: str | None = None  # why no promotion was tried
    overlay: Path | None = None
    tracking: TrackingResult | None = None
    group: Path | None = None  # folder of the sweeps that shared its slots, if any
    failure: str | None = None  # why nothing was found

    @property
    def first_error(self) -> str | None:
        """The error of the first failed trial."""
        ends = (trial.end for trial in self.ledger.trials.values())
        return next((end.error for end in ends if end is not None and end.error), None)


def gains_of(
    best: Mapping[str, float],
    zero_shot: Mapping[str, float],
    trivial: Mapping[str, float],
    test: EvaluationTable | None,
) -> list[Gain]:
    """Rows for validation (of the best epoch) and for test, each with truth boxes and with no prompt."""
    rows = []
    for prompt in PROMPTS:
        dice, iou = f"val/{prompt}/dice", f"val/{prompt}/iou"
        if all(dice in scores for scores in (best, zero_shot, trivial)):
            rows.append(
                Gain(
                    split="val",
                    prompt=prompt,
                    adapter=best[dice],
                    zero_shot=zero_shot[dice],
                    trivial=trivial[dice],
                    adapter_iou=best[iou],
                    zero_shot_iou=zero_shot[iou],
                    trivial_iou=trivial[iou],
                )
            )
    for row in test.rows if test else ():
        if row.model == "adapter" and test is not None:
            zero, plain = test.row("zero_shot", row.prompt), test.best_trivial(row.prompt)
            rows.append(
                Gain(
                    split="test",
                    prompt=row.prompt,
                    adapter=row.dice,
                    zero_shot=zero.dice,
                    trivial=plain.dice,
                    adapter_iou=row.iou,
                    zero_shot_iou=zero.iou,
                    trivial_iou=plain.iou,
                )
            )
    return rows


def measured(test: EvaluationTable | None) -> dict[str, float]:
    """Means of the adapter on test beside Dice and IoU, such as "box/s_measure"."""
    return {
        f"{prompt}/{metric}": value
        for (model, prompt), means in (test.means if test else {}).items()
        for metric, value in means.items()
        if model == "adapter" and metric not in ("dice", "iou")
    }


def show_outcome(console: Console, outcome: SweepOutcome) -> None:
    """Prints the whole result."""
    console.print(leaderboard(outcome.ledger))
    if outcome.finals is not None:
        console.print(finals_table(outcome.finals))
    if outcome.gains:
        console.print(gain_table(outcome))
        for line in measured_lines(outcome):
            console.print(Text(line, style="dim"), soft_wrap=True)
        console.print(Text(f"seed {outcome.seed}; {outcome.protocol}", style="dim"), soft_wrap=True)
    for line in closing_lines(outcome):
        console.print(line, soft_wrap=True, highlight=False)


def show_domains(console: Console, outcomes: Sequence[SweepOutcome]) -> None:
    """Prints the results of sweeps that ran together: each in full, then a line for each in one table."""
    for outcome in outcomes:
        console.rule(f"{outcome.domain} (sweep {outcome.sweep_id})", align="left")
        if outcome.failure:
            console.print(f"[red]Failed[/]: {escape(outcome.failure)}", soft_wrap=True, highlight=False)
        else:
            show_outcome(console, outcome)
    console.print(domains_table(outcomes))


def domains_table(outcomes: Sequence[SweepOutcome]) -> Table:
    """A line for each domain. Scores of different domains are not to be compared, only their gains."""
    table = Table(title="All domains: Dice of the best trial with truth boxes", title_justify="left")
    for name in ("domain", "sweep", "trials", "best trial"):
        table.add_column(name, overflow="fold")
    for name in ("val", "over zero-shot", "test", "over zero-shot"):
        table.add_column(name, justify="right")
    table.add_column("outcome")
    for outcome in outcomes:
        found = {gain.split: gain for gain in outcome.gains if gain.prompt == "box"}
        scores = [
            text
            for gain in (found.get("val"), found.get("test"))
            for text in ((f"{gain.adapter:.3f}", _signed(gain.adapter - gain.zero_shot)) if gain else ("-", "-"))
        ]
        best = outcome.champion.trial_id if outcome.champion else "-"
        trials = str(len(outcome.ledger.ranking()))
        table.add_row(outcome.domain, outcome.sweep_id, trials, best, *scores, _in_a_word(outcome))
    return table


def _in_a_word(outcome: SweepOutcome) -> str:
    if outcome.failure:
        return "[red]failed[/]"
    if outcome.interrupted:
        return "[yellow]interrupted[/]"
    if outcome.promotion is None:
        return "[yellow]not registered[/]"
    return "[green]champion[/]" if outcome.promotion.promoted else "[yellow]not promoted[/]"


def leaderboard(ledger: Ledger) -> Table:
    """All trials, best validation Dice first."""
    table = Table(title="Leaderboard: validation Dice of each trial's best epoch", title_justify="left")
    for name in ("trial", "searched values", "epochs", "end"):
        table.add_column(name, overflow="fold")
    for name in ("best epoch", "box", "no prompt"):
        table.add_column(name, justify="right")
    for trial in ledger.ranking():
        reason = trial.end.reason if trial.end else "user"
        best = trial.best
        values = ", ".join(describe_value(path, value) for path, value in trial.values.items())
        table.add_row(
            trial.trial_id,
            values,
            str(len(trial.epochs)),
            f"[{STYLES[reason]}]{reason.replace('_', ' ')}[/]",
            str(best.epoch) if best else "-",
            *(_number(best.values.get(f"val/{prompt}/dice")) if best else "-" for prompt in PROMPTS),
        )
    return table


def gain_table(outcome: SweepOutcome) -> Table:
    """Adapter beside zero-shot and the best trivial baseline, Dice with IoU in brackets."""
    assert outcome.champion is not None
    table = Table(title=f"What was gained by {outcome.champion.trial_id}: mean Dice (IoU)", title_justify="left")
    for name in ("split", "prompt"):
        table.add_column(name)
    for name in ("adapter", "zero-shot", "best trivial", "gain over zero-shot", "over trivial"):
        table.add_column(name, justify="right")
    for gain in outcome.gains:
        table.add_row(
            gain.split,
            PROMPTS[gain.prompt],
            f"[bold]{gain.adapter:.3f}[/] ({gain.adapter_iou:.3f})",
            f"{gain.zero_shot:.3f} ({gain.zero_shot_iou:.3f})",
            f"{gain.trivial:.3f} ({gain.trivial_iou:.3f})",
            _signed(gain.adapter - gain.zero_shot),
            _signed(gain.adapter - gain.trivial),
        )
    return table


def measured_lines(outcome: SweepOutcome) -> list[str]:
    """Other metrics than Dice and IoU on test, a line for each prompt."""
    if not outcome.measured:
        return []
    from infosam.metrics import METRICS  # only now: it imports torch

    found = {
        text: [
            f"{metric.title} {outcome.measured[f'{prompt}/{name}']:.3f}"
            for name, metric in METRICS.items()
            if f"{prompt}/{name}" in outcome.measured
        ]
        for prompt, text in PROMPTS.items()
    }
    return [f"test, {text}: {'; '.join(parts)}" for text, parts in found.items() if parts]


def closing_lines(outcome: SweepOutcome) -> list[str]:
    """What was decided, what could not be done, where things are, what to type next."""
    lines = []
    if outcome.finals is not None and (gain := describe_gain(outcome.finals)) is not None:
        lines.append(f"Information terms: {gain}")
    promotion = outcome.promotion
    if promotion is not None and promotion.promoted:
        lines.append(
            f"[green]Champion of {outcome.domain}[/]: {promotion.model} version {promotion.version}; "
            + escape(describe(promotion.reasons))
        )
    elif promotion is not None:
        lines.append(
            f"[yellow]Not promoted[/]: {escape(describe(promotion.reasons))}; kept as {promotion.model} version "
            f"{promotion.version}, see [bold]infosam champions show {outcome.domain}[/]"
        )
    elif outcome.unregistered:
        again = f"; offer it again with {resume_command(outcome)}" if outcome.bundle and not outcome.interrupted else ""
        lines.append(f"[yellow]Not registered[/]: {escape(outcome.unregistered)}{again}")
    if outcome.tracking is not None and outcome.tracking.unwritten:
        lines.append(
            f"[yellow]MLflow lacks {outcome.tracking.unwritten} records[/] ({outcome.tracking.error}); they "
            f"are in {outcome.folder / 'events.jsonl'}, and [bold]infosam sync {outcome.sweep_id}[/] brings them there"
        )
    if outcome.interrupted:
        lines.append(f"[yellow]Interrupted[/]: these are partial results; go on with {resume_command(outcome)}")
    if outcome.overlay:
        lines.append(f"Picture:       {outcome.overlay}")
    if (page := outcome.folder / REPORT).is_file():
        lines.append(f"Report:        {page}")
    if outcome.bundle:
        lines.append(f"Best adapter:  {outcome.bundle}")
    lines.append(f"Sweep folder:  {outcome.folder}")
    lines.append(f"All runs:      [bold]{ui_command(outcome.tracking_uri)}[/]")
    if promotion is not None and promotion.promoted:
        lines.append(f"Use it:        [bold]infosam predict --domain {outcome.domain} IMAGES --out DIR[/]")
    return lines


def resume_command(outcome: SweepOutcome) -> str:
    """How to go on with a sweep, and with those that shared its slots; what lies outside of the results folder is named
    by its path."""
    folder = outcome.group or outcome.folder
    known = folder.parent == find_home().sweeps
    return f"infosam sweep --resume {folder.name if known else folder}"


def ui_command(uri: str) -> str:
    """How to look at the runs."""
    return "infosam ui" if uri.startswith("sqlite:") else f"open {uri}"


def draw_overlays(bundle: Path, data: Path, out: Path, *, model: ModelConfig, device: str) -> Path | None:
    """Test images in rows: truth, the untuned model, the adapter with the truth's box and without prompt."""
    import torch

    from infosam.data.prompts import box_of
    from infosam.data.store import open_dataset
    from infosam.overlay import contact_sheet, draw_overlay
    from infosam.predict import Predictor
    from infosam.prompt_files import ImagePrompt

    store = open_dataset(data)
    tuned = Predictor(bundle, checkpoint=model.checkpoint, device=device)
    untuned = Predictor(model, device=device)
    rows = []
    for index in range(min(OVERLAY_IMAGES, store.rows("test"))):
        sample = store.read("test", index)
        if not sample.mask.any():
            continue
        x0, y0, x1, y1 = box_of(torch.from_numpy(sample.mask)).tolist()
        prompt = ImagePrompt(box=(x0, y0, x1, y1))
        row = {"truth": draw_overlay(sample.image, sample.mask, None, prompt.box)}
        for name, predictor in (("zero-shot, truth box", untuned), ("adapter, truth box", tuned)):
            predicted = predictor.predict(sample.image, prompt)
            row[name] = draw_overlay(sample.image, predicted, sample.mask, prompt.box)
        row["adapter, no prompt"] = draw_overlay(sample.image, tuned.predict(sample.image), sample.mask)
        rows.append(row)
    if not rows:
        return None
    contact_sheet([list(row.values()) for row in rows], list(rows[0])).save(out)
    return out


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"[{'green' if value > 0 else 'red'}]{value:+.3f}[/]"
