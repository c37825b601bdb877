"""Who becomes champion, by validation only. Numbers, no registry."""

from __future__ import annotations

import numpy as np
import pytest

from tune.champions.rule import Evidence, Incumbent, judge


def constant(dice: float, images: int = 8) -> np.ndarray:
    return np.full(images, dice)


def evidence(dice: float = 0.8, images: int = 8, **changes: object) -> Evidence:
    settings = {
        "prompt": "box",
        "adapter": constant(dice, images),
        "zero_shot": constant(0.6, images),
        "trivial": constant(0.7, images),
    }
    return Evidence(**(settings | changes))  # type: ignore[arg-type]


def incumbent(dice: float | None, why: str = "") -> Incumbent:
    return Incumbent(version="3", dice=None if dice is None else constant(dice), why_unknown=why)


@pytest.mark.parametrize(
    ("dice", "champion", "passed", "words"),
    [
        (0.8, None, True, "val Dice 0.8000 (box prompt) beats zero-shot at 0.6000"),
        (0.65, None, False, "does not beat the best trivial baseline at 0.7000"),
        (0.5, None, False, "does not beat zero-shot at 0.6000"),
        (0.7, None, False, "does not beat the best trivial baseline at 0.7000"),
        (0.8, incumbent(0.75), True, "beats champion version 3 at 0.7500"),
        (0.8, incumbent(0.85), False, "does not beat champion version 3 at 0.8500"),
        (0.8, incumbent(0.8), False, "does not beat champion version 3 at 0.8000"),
        (0.8, incumbent(None, "its base is gone"), False, "cannot be compared, so it stays: its base is gone"),
    ],
)
def test_a_challenger_must_beat_everything(dice: float, champion: Incumbent | None, passed: bool, words: str) -> None:
    judgement = judge(evidence(dice), champion)
    assert judgement.passed is passed
    assert words in "; ".join(judgement.reasons)


def test_every_rival_it_does_not_beat_is_named() -> None:
    judgement = judge(evidence(0.5), incumbent(0.9))
    assert len(judgement.reasons) == 3


def test_a_gain_that_may_be_chance_is_no_gain() -> None:
    rng = np.random.default_rng(0)
    ours = constant(0.705, 16) + rng.normal(0, 0.1, 16)
    judgement = judge(evidence(images=16, adapter=ours - ours.mean() + 0.705), None)
    assert not judgement.passed
    (reason,) = judgement.reasons
    assert "beats the best trivial baseline at 0.7000, but the 95 % interval -0." in reason
    assert "over 16 images holds 0: it may be chance" in reason


def test_images_that_are_hard_for_both_do_not_hide_a_gain() -> None:
    hard = np.linspace(0.1, 0.9, 16)
    judgement = judge(evidence(images=16, adapter=hard + 0.02, zero_shot=hard, trivial=hard), None)
    assert judgement.passed


def test_one_image_is_no_proof() -> None:
    judgement = judge(evidence(images=1), None)
    assert not judgement.passed
    assert "on the only validation image, which is no proof" in judgement.reasons[0]


def test_a_bundle_that_is_not_what_was_trained_is_refused() -> None:
    judgement = judge(evidence(0.8, reported=0.9), None)
    assert judgement.reasons == (
        "the bundle scores 0.8000, its trial reported 0.9000: read back, it is not what was trained",
    )
    assert judge(evidence(0.8, reported=0.801), None).passed
