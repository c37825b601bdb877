"""Norm tuning: only weights and biases of the image encoder's LayerNorms train, those of the neck (over channels of
maps) included. It adds nothing, so the result is a plain SAM."""

from __future__ import annotations

from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

from infosam.peft.config import NormConfig
from infosam.peft.full import names_from


def inject(sam: Sam, config: NormConfig) -> list[str]:
    """Changes nothing; returns the names of the norms' parameters from the first block on."""
    norms = {f"{path}." for path, module in sam.named_modules() if isinstance(module, nn.LayerNorm | LayerNorm2d)}
    return [name for name in names_from(sam, config.first_block) if name.startswith(tuple(norms))]
