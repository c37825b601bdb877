"""Did fine-tuning help? The champion beside the untuned model and the best trivial mask, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from infosam.bootstrap import CONFIDENCE, Interval, gain_interval
from tune.note import PROMPTS
from tune.report.record import Record

if TYPE_CHECKING:
    from infosam.evaluation import EvaluationTable

Verdict = Literal["helped", "unclear", "harmed"]


@dataclass(frozen=True, kw_only=True)
class PromptGain:
    """Dice of the champion under one prompt on one split. Intervals have NaN bounds where single images are unknown."""

    split: str
    prompt: str
    images: int
    adapter: float
    zero_shot: float
    trivial: float | None
    over_zero_shot: Interval
    over_trivial: Interval | None
    differences: NDArray[np.float64] | None  # adapter minus zero-shot, one per image
    ids: list[str]

    @property
    def prompted(self) -> str:
        """The prompt, for people."""
        return PROMPTS[self.prompt]

    @property
    def verdict(self) -> Verdict:
        """What the interval over zero-shot says."""
        if self.over_zero_shot.low > 0:
            return "helped"
        return "harmed" if self.over_zero_shot.high < 0 else "unclear"


def gains(record: Record) -> list[PromptGain]:
    """Per prompt, the one that decides first: on the test images if the champion was scored there, else on validation,
    where only means are kept."""
    prompts = sorted(PROMPTS, key=lambda prompt: prompt != record.select)
    if record.scores is not None and record.scores.per_image:
        return [_on_test(record.scores, prompt) for prompt in prompts]
    return [gain for prompt in prompts if (gain := _on_validation(record, prompt)) is not None]


def describe_interval(interval: Interval | None) -> str:
    """`+0.012 [+0.003, +0.021]`."""
    if interval is None:
        return "-"
    if np.isnan(interval.low):
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def verdict_in_words(gain: PromptGain) -> str:
    """One sentence for one prompt."""
    means = f"mean Dice {gain.zero_shot:.3f} without and {gain.adapter:.3f} with the adapter"
    if gain.differences is None:
        way = "higher" if gain.over_zero_shot.mean > 0 else "not higher"
        return (
            f"With {gain.prompted} the validation score is {way} ({means}), but the adapter was chosen by these images "
            "and not scored on test, so this is no evidence yet."
        )
    bounds = f"{CONFIDENCE:.0%} interval of the gain {gain.over_zero_shot.low:+.3f} to {gain.over_zero_shot.high:+.3f}"
    told = f"{means}; {bounds}, {gain.images} test images"
    if np.isnan(gain.over_zero_shot.low):
        return f"With {gain.prompted} nothing can be said from one test image ({means})."
    if gain.verdict == "helped":
        return f"With {gain.prompted} it helped: {told}."
    if gain.verdict == "harmed":
        return f"With {gain.prompted} it did harm: {told}."
    return f"With {gain.prompted} these images do not show that it helped: {told}, which holds 0."


def _on_test(table: EvaluationTable, prompt: str) -> PromptGain:
    ours, theirs = (table.dice(model, prompt) for model in ("adapter", "zero_shot"))  # type: ignore[arg-type]
    plain = table.best_trivial(prompt)  # type: ignore[arg-type]
    trivial = table.dice(plain.model, prompt)  # type: ignore[arg-type]
    return PromptGain(
        split="test",
        prompt=prompt,
        images=len(ours),
        adapter=float(ours.mean()),
        zero_shot=float(theirs.mean()),
        trivial=float(trivial.mean()),
        over_zero_shot=gain_interval(ours, theirs),
        over_trivial=gain_interval(ours, trivial),
        differences=ours - theirs,
        ids=[image["id"] for image in table.per_image["adapter", prompt]],  # type: ignore[index]
    )


def _on_validation(record: Record, prompt: str) -> PromptGain | None:
    name = f"val/{prompt}/dice"
    best = record.champion.best if record.champion else None
    if best is None or name not in best.values or name not in record.started.zero_shot:
        return None
    ours, theirs = best.values[name], record.started.zero_shot[name]
    images = int(record.started.data.get("counts", {}).get("val", 0))
    metrics = record.ledger.end.metrics if record.ledger.end else {}
    over_trivial = metrics.get(f"delta/val/{prompt}/dice_vs_trivial")
    return PromptGain(
        split="val",
        prompt=prompt,
        images=images,
        adapter=ours,
        zero_shot=theirs,
        trivial=None if over_trivial is None else ours - over_trivial,
        over_zero_shot=_mean_only(ours - theirs, images),
        over_trivial=None if over_trivial is None else _mean_only(over_trivial, images),
        differences=None,
        ids=[],
    )


def _mean_only(mean: float, images: int) -> Interval:
    return Interval(mean, float("nan"), float("nan"), images)
