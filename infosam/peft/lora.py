"""LoRA on Linears of the image encoder (Hu et al. 2021), through the peft library.

SAM's qkv is one Linear, so a rank here is not comparable with LoRA on separate q and v.
"""

from __future__ import annotations

from typing import Any

from segment_anything.modeling import Sam

from infosam.peft import library
from infosam.peft.config import DoraConfig, LoraConfig, RsLoraConfig


def inject(sam: Sam, config: LoraConfig) -> list[str]:
    """Adds the updates in place; returns patterns of the parameters that train. The start point is SAM itself."""
    return inject_variant(sam, config)


def inject_variant(sam: Sam, config: LoraConfig | DoraConfig | RsLoraConfig, **switches: Any) -> list[str]:
    """LoRA with `switches` of peft's LoraConfig, such as use_dora; for the kinds that are LoRA but for one."""
    names = [name for target in config.targets for name in library.LINEARS[target]]
    modules = library.linears(sam, config.first_block, names)
    import peft

    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.numerator,  # type: ignore[arg-type]
        target_modules=modules,
        bias="none",
        **switches,
    )
    return library.inject(sam, settings, modules, "lora_")
