"""Parallel bottleneck adapters of SU-SAM (Song et al. 2024), type 1 of the released InfoSAM code.

x + attention(n1) + s * adapter(n1), then x + mlp(n2) + s * adapter(n2), where n1 and n2 are the block's normed inputs.
In windowed blocks the first one sees the windows, padding included; it works token by token, so nothing differs.
"""

from __future__ import annotations

from segment_anything.modeling import Sam

from infosam.peft.bottleneck import Bottleneck, adapted_blocks, add_beside, patterns
from infosam.peft.config import ParallelConfig


def inject(sam: Sam, config: ParallelConfig) -> list[str]:
    """Adds the adapters in place; returns patterns of the parameters that train."""
    for block, channels, width in adapted_blocks(sam, config):
        for module in (block.attn, block.mlp):
            add_beside(module, Bottleneck(channels, width, zero_init=config.zero_init, scale=config.scale))
    return patterns(sam, config)
