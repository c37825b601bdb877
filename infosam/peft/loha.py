"""LoHa (FedPara, Hyeon-Woo et al., ICLR 2022), through the peft library: the update of a weight is
alpha / rank * (A1 B1) * (A2 B2), element by element, at twice LoRA's parameters."""

from __future__ import annotations

from segment_anything.modeling import Sam

from infosam.peft import library
from infosam.peft.config import LohaConfig


def inject(sam: Sam, config: LohaConfig) -> list[str]:
    """Adds the updates in place; returns patterns of the parameters that train. The start point is SAM itself."""
    names = [name for target in config.targets for name in library.LINEARS[target]]
    modules = library.linears(sam, config.first_block, names)
    import peft

    settings = peft.LoHaConfig(r=config.rank, alpha=config.numerator, target_modules=modules)  # type: ignore[arg-type]
    return library.inject(sam, settings, modules, "hada_")
