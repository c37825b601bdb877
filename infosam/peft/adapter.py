"""The series bottleneck adapter of InfoSAM: after attention and after the MLP of each adapted encoder block."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor, nn

from infosam.config import AdapterConfig


class SeriesAdapter(nn.Module):
    """x + up(gelu(down(x))) over the channels of any tensor (..., D)."""

    def __init__(self, channels: int, width: int, *, zero_init: bool) -> None:
        super().__init__()
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        if zero_init:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        result: Tensor = x + self.up(F.gelu(self.down(x)))
        return result


def inject(sam: Sam, config: AdapterConfig) -> list[str]:
    """Adds the adapters in place; returns patterns of the parameters that train.

    The adapter is a child of the module it follows and runs as its forward hook, so that SAM's own parameter names,
    and with them the weights file, stay valid."""
    patterns = ["image_encoder.blocks.*.adapter.*"]
    for index in range(config.first_block, len(sam.image_encoder.blocks)):
        block = sam.image_encoder.blocks[index]
        channels = block.norm1.weight.shape[0]
        for module in (block.attn, block.mlp):
            module.adapter = SeriesAdapter(channels, config.width, zero_init=config.zero_init)
            module.register_forward_hook(_apply_adapter)
        if config.train_norms:
            patterns += [f"image_encoder.blocks.{index}.norm1.*", f"image_encoder.blocks.{index}.norm2.*"]
    return patterns


def _apply_adapter(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    adapter = module.adapter
    assert isinstance(adapter, SeriesAdapter)
    adapted: Tensor = adapter(output)
    return adapted
