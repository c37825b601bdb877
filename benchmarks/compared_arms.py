"""What `does_infosam_help.py` compares: ways to train, which of them are paired, and one run of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from infosam.config import RunConfig, apply_overrides, validate

POOLED = "pooled"
"""In the place of a domain: all of them."""
RATES = (3e-4, 1e-3, 3e-3)
"""Peak learning rates that every arm is tried with on validation."""
FEATURE_WEIGHT = 2.0
"""Of feature distillation: about one over the variance of vit_nano's image embeddings, which is .6 on three of the five
domains, .2 on vessels and .07 on roads, so that the term is near the share of it that the student lost."""

_LORA = {"kind": "lora", "rank": 4}
_ADAPTER = {"kind": "adapter", "width": 32}
_PLAIN = {"compression": 0.0, "distillation": 0.0, "features": 0.0}
_FEATURES = {**_PLAIN, "features": FEATURE_WEIGHT}
_INFORMATION = {"compression": 1.0, "distillation": 0.5, "features": 0.0}  # the paper's weights
ARMS: Mapping[str, Mapping[str, Any]] = {
    "decoder": {"peft": {"kind": "decoder"}, "info": _PLAIN},
    "lora": {"peft": _LORA, "info": _PLAIN},
    "lora+features": {"peft": _LORA, "info": _FEATURES},
    "lora+infosam": {"peft": _LORA, "info": _INFORMATION},
    "adapter": {"peft": _ADAPTER, "info": _PLAIN},
    "adapter+features": {"peft": _ADAPTER, "info": _FEATURES},
    "adapter+infosam": {"peft": _ADAPTER, "info": _INFORMATION},
}


class Pair(NamedTuple):
    """Two arms, of which the first is hoped to be better."""

    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.ours} - {self.theirs}"


QUESTION = (Pair("lora+infosam", "lora"), Pair("adapter+infosam", "adapter"))
"""With the information terms against without them: pairs that get more seeds while they are undecided."""
PAIRS = (
    *QUESTION,
    Pair("lora+infosam", "lora+features"),
    Pair("adapter+infosam", "adapter+features"),
    Pair("lora+features", "lora"),
    Pair("adapter+features", "adapter"),
    Pair("lora", "decoder"),
    Pair("adapter", "decoder"),
)


@dataclass(frozen=True)
class Job:
    """One run of one arm on one domain."""

    domain: str
    arm: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """Names its files."""
        return f"{self.domain}/{self.arm}/lr{self.rate:g}-seed{self.seed}"


def config_of(job: Job, common: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """What a run is trained with.

    Args:
        common: settings of all runs.
        overrides: `a.b=c` for all arms, but `info.*` for those with information terms only. Raises ConfigError."""
    arm = ARMS[job.arm]
    settings = {**common, **arm, "optim": {"lr": job.rate}, "train": {**common.get("train", {}), "seed": job.seed}}
    meant = [one for one in overrides if arm["info"] is _INFORMATION or not one.startswith("info.")]
    return validate(RunConfig, apply_overrides(settings, meant), f"{job.arm} with {' '.join(meant) or 'no changes'}")
