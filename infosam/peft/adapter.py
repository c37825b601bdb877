"""The series bottleneck adapter of InfoSAM: after attention and after the MLP of each adapted encoder block.

Type 0 of the released code, which adapts blocks 2 to 11 of vit_b at a quarter of its width.
"""

from __future__ import annotations

from segment_anything.modeling import Sam
from torch import Tensor

from infosam.peft.bottleneck import Bottleneck, adapted_blocks, add_after, patterns
from infosam.peft.config import AdapterConfig


class SeriesAdapter(Bottleneck):
    """x + up(gelu(down(x))) over the channels of any tensor (..., D)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return x + super().forward(x)


def inject(sam: Sam, config: AdapterConfig) -> list[str]:
    """Adds the adapters in place; returns patterns of the parameters that train."""
    for block, channels, width in adapted_blocks(sam, config):
        for module in (block.attn, block.mlp):
            add_after(module, SeriesAdapter(channels, width, zero_init=config.zero_init))
    return patterns(sam, config)
