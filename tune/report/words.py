"""What a report says in words: cost, why trials stopped, what to do next."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping

from tune.events import OBJECTIVE, StopReason
from tune.finals_report import describe_gain
from tune.ledger import TrialRecord
from tune.report.gains import PromptGain
from tune.report.record import Record, epoch_seconds
from tune.space import Choice, IntUniform, LogUniform

REASONS: Mapping[StopReason, str] = {
    "completed": "trained to its end",
    "early_stopped": "stopped early: others were better at the same epoch",
    "plateau": "stopped early: it no longer rose",
    "budget": "cut off: the budget was used up",
    "user": "cut off by the user",
    "error": "failed",
    "driver_died": "cut off: the driver died",
}
FEW_TRIALS = 8
FEW_IMAGES = 30
ERRORS = 5
COLLAPSED_BITS = 0.1
"""A relation with less entropy is the same for every image of a batch."""
HOUR_S = 3600.0


def stop_reasons(record: Record) -> list[tuple[str, int]]:
    """What became of the trials, repeats and twins included, the most frequent first."""
    counts = Counter(trial.end.reason if trial.end else None for trial in record.ledger.trials.values())
    return [(REASONS[reason] if reason else "still runs, or its driver died", count)
            for reason, count in counts.most_common()]  # fmt: skip


def errors(record: Record) -> list[tuple[str, int]]:
    """The most frequent errors of failed trials."""
    ends = [trial.end.error for trial in record.ledger.trials.values() if trial.end is not None and trial.end.error]
    return Counter(ends).most_common(ERRORS)


def cost(record: Record) -> list[tuple[str, str]]:
    """What the sweep took, as names and values."""
    trials = list(record.ledger.trials.values())
    epochs = sum(len(trial.epochs) for trial in trials)
    full = len(trials) * record.config.run.train.epochs
    known = [second for trial in trials for second in _epoch_seconds(trial)]
    rows = [
        ("wall time, from the first event to the last", duration(record.last_at - record.began_at)),
        ("trials, with repeats and twins", str(len(trials))),
        ("epochs trained", f"{epochs}, {epochs / full:.0%} of {full} without early ends" if full else "none"),
    ]
    if known:
        rows.append(("time in epochs, all trials together", duration(sum(known))))
        rows.append(("median epoch", f"{statistics.median(known):.1f} s"))
    resources = record.config.resources
    gpus = resources.gpus_per_worker * resources.workers_per_trial
    if gpus and known:
        rows.append(("GPU-hours", f"{sum(known) * gpus / HOUR_S:.2f}"))
    if record.champion is not None and (size := record.size(record.champion)) is not None:
        rows.append(("adapter of the champion, float32", f"{size:.2f} MB"))
    return rows


def information_terms(record: Record) -> str:
    """What the information terms gave."""
    told = describe_gain(record.finals) if record.finals is not None else None
    if told is not None:
        return f"{told}."
    if record.champion is None:
        return "No trial has a score, so nothing can be said about the information terms."
    if record.config.final.twin:
        return "There is no twin to compare with: the winner has no information terms, or its twin did not end."
    return (
        "Not known: the winner was not trained without them. Set final.twin=true and final.seeds=3 to have its twin "
        "trained under the same seeds."
    )


def recommendation(record: Record, gains: list[PromptGain]) -> list[str]:
    """What to do, the most important first."""
    champion = record.champion
    if champion is None or champion.best is None:
        first = next(iter(errors(record)), None)
        why = f" The most frequent error: {first[0]}" if first else ""
        return [f"No trial gave a result, so there is nothing to use. Mend what failed and start again.{why}"]
    return [*_on_use(record, gains), *_on_search(record, champion)]


def duration(seconds: float) -> str:
    """`1 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if seconds >= HOUR_S:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s" if seconds >= 60 else f"{seconds:.1f} s"


def _epoch_seconds(trial: TrialRecord) -> list[float]:
    mean = epoch_seconds(trial)
    return [] if mean is None else [mean] * len(trial.epochs)


def _on_use(record: Record, gains: list[PromptGain]) -> Iterator[str]:
    first = gains[0] if gains else None
    domain = record.started.domain
    if first is None or first.differences is None:
        yield (
            "Do not judge by these scores yet: the best adapter was not scored on the test images. "
            f"infosam sweep --resume {record.name} goes on with the sweep."
        )
    elif first.verdict == "helped" and _beats_trivial(first):
        yield (
            f"Use the adapter of {record.champion.trial_id if record.champion else ''} with {first.prompted}: it beats "
            f"the untuned model by {first.over_zero_shot.mean:+.3f} Dice and the best trivial mask by "
            f"{first.over_trivial.mean if first.over_trivial else math.nan:+.3f}."
        )
    elif first.verdict == "helped":
        yield (
            "Do not use the adapter: it beats the untuned model, but not a mask that the prompt alone gives, so it has "
            "learnt next to nothing about these images."
        )
    elif first.verdict == "harmed":
        yield f"Do not use the adapter for {domain}: the untuned model is better on the test images."
    else:
        yield (
            "Keep the untuned model unless other evidence speaks for the adapter: the gain may be luck. More test "
            f"images (now {first.images}) or more seeds (final.seeds) would tell."
        )
    promotion = record.ledger.promotion
    if promotion is not None and promotion.promoted:
        yield f"It is the champion of {domain}: infosam predict --domain {domain} IMAGES --out DIR."
    elif promotion is not None:
        yield f"It did not become champion of {domain}: {'; '.join(promotion.reasons)}."
    if first is not None and first.differences is not None and first.images < FEW_IMAGES:
        yield f"{first.images} test images are few; a gain of a few hundredths can hardly be told from chance."


def _beats_trivial(gain: PromptGain) -> bool:
    return gain.over_trivial is not None and gain.over_trivial.low > 0


def _on_search(record: Record, champion: TrialRecord) -> Iterator[str]:
    assert champion.best is not None
    if record.zero_shot is not None and champion.score < record.zero_shot:
        yield "The best trial is below the untuned model on validation: widen the space, lower optim.lr, or add images."
    if champion.best.epoch == record.config.run.train.epochs and _still_rises(champion):
        yield "The best epoch of the best trial is its last: longer training (run.train.epochs) may give more."
    edges = [path for path, value in champion.values.items() if _is_at_edge(record, path, value)]
    if edges:
        yield f"The best trial lies at the edge of the range of {', '.join(edges)}: widen it there."
    yield from _on_relation(record, champion)
    if len(record.contenders) < FEW_TRIALS:
        yield f"Trials with a score: only {len(record.contenders)}; search.trials=16 or more looks further."
    failed = sum(trial.end is not None and trial.end.state == "FAILED" for trial in record.ledger.trials.values())
    if failed:
        yield f"{failed} of {len(record.ledger.trials)} trials failed; see below why."
    if record.config.final.seeds == 1:
        yield "One seed says little about a configuration: final.top=3 and final.seeds=3 would rank the best by means."


def _on_relation(record: Record, champion: TrialRecord) -> Iterator[str]:
    weight = champion.values.get("info.distillation", record.config.run.info.distillation)
    last = max(champion.epochs, key=lambda epoch: epoch.epoch)
    left = last.values.get("info/entropy_teacher", math.inf)
    if weight and left < COLLAPSED_BITS:
        yield (
            f"The relation that the best trial reads from the teacher ended at {left:.2f} bits: it is the same for "
            "every image of a batch, so info.distillation had nothing left to teach. A smaller info.compression beside "
            "info.distillation would keep it."
        )


def _still_rises(trial: TrialRecord) -> bool:
    scores = [epoch.values[OBJECTIVE] for epoch in sorted(trial.epochs, key=lambda epoch: epoch.epoch)]
    return len(scores) > 1 and scores[-1] > scores[-2]


def _is_at_edge(record: Record, path: str, value: object) -> bool:
    """Whether a number lies within a twentieth of its range (of its logarithm, where it is drawn so) from a bound."""
    one = record.space.get(path)
    if one is None or isinstance(one, Choice) or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = sorted(one.corners())[-2:]
    if isinstance(one, LogUniform) or (isinstance(one, IntUniform) and one.log):
        if value <= 0:
            return False
        low, high, value = math.log(low), math.log(high), math.log(value)
    share = (value - low) / (high - low)
    return share < 0.05 or share > 0.95
