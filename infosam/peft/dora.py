"""DoRA (Liu et al., ICML 2024), through the peft library: each row of a weight gets a trained length, and LoRA turns
its direction. The row's norm is a constant to the gradient, as section 4.3 of the paper advises."""

from __future__ import annotations

from segment_anything.modeling import Sam

from infosam.peft.config import DoraConfig
from infosam.peft.lora import inject_variant


def inject(sam: Sam, config: DoraConfig) -> list[str]:
    """Adds the updates in place; returns patterns of the parameters that train. The start point is SAM itself."""
    return inject_variant(sam, config, use_dora=True)
