"""The rule that makes champions, on numbers alone: better on validation than everything it would replace, and not by
the chance of which images those were. Test scores never come here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PerImage = NDArray[np.float64]
"""Dice of each validation image (n,), in the order of the data set."""

RELOAD_TOLERANCE = 0.005
"""By how much a bundle's own mean may differ from what its trial reported: other processors round otherwise."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Validation Dice of a bundle and of what was there without it, per image, all under one prompt."""

    prompt: str
    adapter: PerImage
    zero_shot: PerImage
    trivial: PerImage  # of the trivial baseline with the higher mean
    reported: float | None = None  # mean that the trial reported under the same protocol, if it did


@dataclass(frozen=True, kw_only=True)
class Incumbent:
    """The present champion on the challenger's validation images; `dice` is None where it could not be scored."""

    version: str
    dice: PerImage | None
    why_unknown: str = ""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """`reasons` speak for a bundle that passed, or say what the other one lacks."""

    passed: bool
    reasons: tuple[str, ...]


def judge(evidence: Evidence, incumbent: Incumbent | None) -> Judgement:
    """Whether a bundle beats zero-shot, the best trivial baseline and the champion: by its mean, and with a paired
    bootstrap interval of the difference (95 %) that holds only gains."""
    rivals = {"zero-shot": evidence.zero_shot, "the best trivial baseline": evidence.trivial}
    against: list[str] = []
    if incumbent is not None and incumbent.dice is not None:
        rivals[f"champion version {incumbent.version}"] = incumbent.dice
    elif incumbent is not None:
        against.append(f"champion version {incumbent.version} cannot be compared, so it stays: {incumbent.why_unknown}")
    mean = float(evidence.adapter.mean())
    if evidence.reported is not None and abs(evidence.reported - mean) > RELOAD_TOLERANCE:
        against.append(
            f"the bundle scores {mean:.4f}, its trial reported {evidence.reported:.4f}: read back, it is not what was "
            "trained"
        )
    beaten: list[str] = []
    for name, dice in rivals.items():
        passed, reason = compare(evidence, name, dice)
        (beaten if passed else against).append(reason)
    return Judgement(passed=not against, reasons=tuple(against or beaten))


def compare(evidence: Evidence, name: str, rival: PerImage) -> tuple[bool, str]:
    """Whether the bundle beats one rival, and the sentence that says so."""
    from infosam.bootstrap import gain_interval

    gain = gain_interval(evidence.adapter, rival)
    who = f"val Dice {evidence.adapter.mean():.4f} ({evidence.prompt} prompt)"
    other = f"{name} at {rival.mean():.4f}"
    if gain.mean <= 0:
        return False, f"{who} does not beat {other}"
    if gain.images < 2:
        return False, f"{who} beats {other} on the only validation image, which is no proof: import more"
    interval = f"the 95 % interval {gain.low:+.4f} to {gain.high:+.4f} of the difference over {gain.images} images"
    if not gain.excludes_zero:
        return False, f"{who} beats {other}, but {interval} holds 0: it may be chance"
    return True, f"{who} beats {other}: {interval} holds only gains"


def describe(reasons: Sequence[str]) -> str:
    """All reasons in one line, as on a version's tag."""
    return "; ".join(reasons)
