"""AdaptFormer (Chen et al., NeurIPS 2022): a bottleneck beside the MLP, x + mlp(n) + s * up(activation(down(n))).

As type 5 of the released InfoSAM code: n is the block's own normed input of the MLP and s is 0.5, with GELU. The paper
norms x a second time with a LayerNorm of the adapter's own, and takes s = 0.1 and ReLU, which are settings here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from segment_anything.modeling import Sam

from infosam.peft.bottleneck import Activation, Bottleneck, adapted_blocks, add_beside, patterns
from infosam.peft.config import AdaptFormerConfig

ACTIVATIONS: Mapping[str, Activation] = {"gelu": F.gelu, "relu": F.relu}


def inject(sam: Sam, config: AdaptFormerConfig) -> list[str]:
    """Adds the adapters in place; returns patterns of the parameters that train."""
    for block, channels, width in adapted_blocks(sam, config):
        adapter = Bottleneck(
            channels,
            width,
            zero_init=config.zero_init,
            activation=ACTIVATIONS[config.activation],
            scale=config.scale,
        )
        add_beside(block.mlp, adapter)
    return patterns(sam, config)
