"""Rank-stabilised LoRA (Kalajdzievski 2023), through the peft library: the scale is alpha / sqrt(rank)."""

from __future__ import annotations

from segment_anything.modeling import Sam

from infosam.peft.config import RsLoraConfig
from infosam.peft.lora import inject_variant


def inject(sam: Sam, config: RsLoraConfig) -> list[str]:
    """Adds the updates in place; returns patterns of the parameters that train. The start point is SAM itself."""
    return inject_variant(sam, config, use_rslora=True)
