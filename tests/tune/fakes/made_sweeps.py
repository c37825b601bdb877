"""Sweeps of every kind as event logs, in no time: scores follow a formula, nothing is trained."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tune.config import SweepConfig, parse_sweep_config
from tune.event_log import NAME, EventLog
from tune.events import (
    EpochReported,
    Event,
    PromotionDecided,
    ScoredOnTest,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialStarted,
)
from tune.kept_scores import TEST_SCORES
from tune.space import in_order, is_active

BEGAN_AT = 1_790_000_000.0
ZERO_SHOT, TRIVIAL = 0.70, 0.66
TEST_IMAGES = 48
HOSTILE = "</script><script>document.title='owned'</script>"


def make_sweep(
    folder: Path,
    *,
    trials: int = 12,
    epochs: int = 8,
    settings: Mapping[str, Any] | None = None,
    fail: bool = False,
    finals: bool = False,
    test: bool = True,
    gain: float = 0.05,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a sweep into a new folder.

    Args:
        settings: of the sweep file, beside data and trials.
        fail: every trial fails.
        finals: with repeats and a twin over three seeds.
        test: scored on made-up test images, on which it gains `gain`.
        data: of the first event, in place of made-up images."""
    name = folder.name
    sections: dict[str, Any] = {
        "name": name,
        "data": "made-up",
        "run": {"train": {"epochs": epochs}},
        **(settings or {}),
    }
    sections.setdefault("search", {})["trials"] = trials
    if finals:
        sections["final"] = {"top": 2, "seeds": 3, "twin": True}
    config = parse_sweep_config(sections, [], source="made up")
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    with contextlib.closing(EventLog(folder / NAME)) as log:
        log(_started(config, name, data))
        for number in range(trials):
            for event in _trial(config, number, fail=fail):
                log(event)
        best = _best(config, trials)
        if finals and not fail:
            for event in _finals(config, trials):
                log(event)
        if test and not fail:
            champion = _champion(best, finals=finals)
            log(ScoredOnTest(trial_id=champion, at=_at(trials)))
            log(
                PromotionDecided(
                    trial_id=champion, promoted=gain > 0, model=f"infosam-{name}", version="1",
                    reasons=["beats zero-shot"] if gain > 0 else ["does not beat zero-shot"], at=_at(trials),
                )
            )  # fmt: skip
            write_scores(folder / "trials" / champion, gain)
        log(_ended(fail=fail, at=_at(trials) + 5))
    return folder


def write_scores(trial: Path, gain: float) -> None:
    """Dice of made-up test images: most of them gain, some lose."""
    rng = np.random.default_rng(3)
    plain = rng.uniform(0.55, 0.85, TEST_IMAGES)
    ours = np.clip(plain + rng.normal(gain, 0.06, TEST_IMAGES), 0, 1)
    scores = {"adapter": ours, "zero_shot": plain, "box_filled": plain - 0.1, "inscribed_ellipse": plain - 0.04}
    names = [f"image-{number:03d}" for number in range(TEST_IMAGES)]
    content = {
        "bundle": "0" * 64,
        "protocol": "strict protocol; split test",
        "rows": [
            {"model": model, "prompt": prompt, "dice": float(dice.mean()), "iou": float(dice.mean()) - 0.1,
             "images": TEST_IMAGES}
            for prompt in ("box", "none") for model, dice in scores.items()
        ],
        "images": {
            f"{model}/{prompt}": [{"id": name, "iou": float(one) - 0.1, "dice": float(one)}
                                  for name, one in zip(names, dice, strict=True)]
            for prompt in ("box", "none") for model, dice in scores.items()
        },
    }  # fmt: skip
    trial.mkdir(parents=True, exist_ok=True)
    (trial / TEST_SCORES).write_text(json.dumps(content))


def values_of(config: SweepConfig, number: int) -> dict[str, Any]:
    """The settings of one trial: drawn, but the same in every run."""
    found: dict[str, Any] = {}
    rng = np.random.default_rng(number)
    for path in in_order(config.space):
        one = config.space[path]
        if not is_active(one, found):
            continue
        corners = one.corners()
        if hasattr(one, "choice"):
            found[path] = corners[int(rng.integers(len(corners)))]
            continue
        low, high = sorted(corners)[-2:]
        drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if low > 0 else rng.uniform(low, high)
        found[path] = round(drawn) if hasattr(one, "int_uniform") else drawn
    return found


def dice_of(values: Mapping[str, Any], number: int, epoch: int, epochs: int) -> float:
    """Best at a learning rate of 5e-4; LoRA is a little better; some noise."""
    rate = -0.03 * abs(math.log10(values.get("optim.lr", 5e-4) / 5e-4))
    kind = 0.01 * (values.get("peft.kind", "lora") == "lora")
    noise = 0.01 * math.sin(7.0 * number + epoch)
    return ZERO_SHOT + (0.1 + rate + kind) * (1 - 0.5 ** (6 * epoch / epochs)) - 0.02 + noise


def _started(config: SweepConfig, name: str, data: Mapping[str, Any] | None) -> SweepStarted:
    counts = {"train": 60, "val": 20, "test": TEST_IMAGES}
    found = data or {"name": name, "digest": "5" * 64, "source": "made-up", "counts": counts}
    return SweepStarted(
        sweep_id=name,
        domain=str(found["name"]),
        experiment="infosam",
        settings=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        params={"train.epochs": config.run.train.epochs, "model.name": "vit_nano"},
        tags={"data_digest": str(found["digest"]), "seed": "0", "protocol": "strict protocol", "commit": "made up",
              "backbone": "vit_nano"},
        data=dict(found),
        zero_shot={"val/dice": ZERO_SHOT, "val/box/dice": ZERO_SHOT, "val/none/dice": ZERO_SHOT - 0.2},
        rungs=(2, 4, config.run.train.epochs),
        at=BEGAN_AT,
    )  # fmt: skip


def _at(number: int) -> float:
    return BEGAN_AT + 60.0 * (number + 1)


def _trial(config: SweepConfig, number: int, *, fail: bool) -> Iterator[Event]:
    values, trial_id = values_of(config, number), f"t{number:04d}"
    yield TrialStarted(trial_id=trial_id, values=values, at=_at(number))
    if fail:
        yield TrialEnded(
            trial_id=trial_id, state="FAILED", reason="error", error=f"Diverged: {HOSTILE}", trace="...",
            at=_at(number) + 9,
        )  # fmt: skip
        return
    epochs = config.run.train.epochs
    last = epochs if number % 3 == 0 else 2 + 2 * (number % 2)
    yield from _run(trial_id, values, number, min(last, epochs), epochs, _at(number))


def _run(
    trial_id: str, values: Mapping[str, Any], number: int, last: int, epochs: int, at: float, shift: float = 0.0
) -> Iterator[Event]:
    informed = values.get("info.compression", 1.0) > 0
    for epoch in range(1, last + 1):
        score = dice_of(values, number, epoch, epochs) + shift
        scores = {"val/dice": score, "val/box/dice": score, "val/none/dice": score - 0.15, "val/iou": score - 0.1,
                  "loss/total": 1 - score, "cost/seconds": 4.0 + 0.1 * (number % 5)}  # fmt: skip
        if informed:
            done = 1 - 0.6**epoch
            scores |= {"info/entropy_teacher": 1.9 - 0.2 * done, "info/entropy_student": 1.2 + 0.5 * done,
                       "info/mutual_information": 0.4 + 0.9 * done}  # fmt: skip
        yield EpochReported(
            trial_id=trial_id, epoch=epoch, values=scores, checkpoint=None, is_best=True, at=at + 4 * epoch
        )
    whole = last == epochs
    yield TrialEnded(
        trial_id=trial_id, state="FINISHED" if whole else "KILLED", reason="completed" if whole else "early_stopped",
        at=at + 4 * last + 1,
    )  # fmt: skip


def _best(config: SweepConfig, trials: int) -> Sequence[int]:
    """Trials of the search from the best on, by their best epoch."""
    epochs = config.run.train.epochs

    def score(number: int) -> float:
        last = epochs if number % 3 == 0 else min(2 + 2 * (number % 2), epochs)
        values = values_of(config, number)
        return max(dice_of(values, number, epoch, epochs) for epoch in range(1, last + 1))

    return sorted(range(trials), key=lambda number: (-score(number), number))


def _champion(best: Sequence[int], *, finals: bool) -> str:
    return f"r{best[0]:04d}-s1" if finals else f"t{best[0]:04d}"


def _finals(config: SweepConfig, trials: int) -> Iterator[Event]:
    epochs = config.run.train.epochs
    for number in _best(config, trials)[:2]:
        values = values_of(config, number)
        for seed, shift in ((0, 0.0), (1, 0.004), (2, 0.009)):
            for letter, less in (("r", 0.0), ("w", 0.006)):
                name = f"{letter}{number:04d}-s{seed}"
                changed = {**values, "train.seed": seed}
                if letter == "w":
                    changed |= {"info.compression": 0.0, "info.distillation": 0.0}
                yield TrialStarted(trial_id=name, values=changed, at=_at(trials))
                yield from _run(name, changed, number, epochs, epochs, _at(trials), shift - less * (1 + seed))


def _ended(*, fail: bool, at: float) -> SweepEnded:
    if fail:
        return SweepEnded(state="FAILED", reason="error", note="", at=at)
    return SweepEnded(state="FINISHED", reason="completed", note="", at=at)
