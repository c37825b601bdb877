"""(IA)^3 (Liu et al., NeurIPS 2022), through the peft library: one trained factor per channel.

The paper scales keys, values and the hidden channels of the MLP; SAM's fused projection brings the query with it.
"""

from __future__ import annotations

from segment_anything.modeling import Sam

from infosam.peft import library
from infosam.peft.config import Ia3Config

_HIDDEN = "mlp.lin2"  # what goes into it are the hidden channels of the MLP, after its activation
_MODULES = {"qkv": "attn.qkv", "proj": "attn.proj", "mlp": _HIDDEN}


def inject(sam: Sam, config: Ia3Config) -> list[str]:
    """Adds factors of 1 in place; returns patterns of the parameters that train. Nothing here is drawn by chance."""
    modules = library.linears(sam, config.first_block, [_MODULES[target] for target in config.targets])
    import peft

    settings = peft.IA3Config(
        target_modules=modules,
        feedforward_modules=[module for module in modules if module.endswith(_HIDDEN)],
    )
    return library.inject(sam, settings, modules, "ia3_")
