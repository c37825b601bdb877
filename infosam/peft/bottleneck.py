"""The bottleneck that all our own adapters are made of, and how one gets into a SAM.

An adapter is a child of the module it belongs to and runs as that module's forward hook, so that SAM's own parameter
names, and with them the weights file, stay valid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor, nn

from infosam.peft.config import AdapterConfig, AdaptFormerConfig, ParallelConfig

Activation = Callable[[Tensor], Tensor]
BottleneckConfig = AdapterConfig | ParallelConfig | AdaptFormerConfig


class Bottleneck(nn.Module):
    """scale * up(activation(down(x))) over the channels of any tensor (..., D)."""

    def __init__(
        self, channels: int, width: int, *, zero_init: bool, activation: Activation = F.gelu, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        self.activation = activation
        self.scale = scale
        if zero_init:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        result: Tensor = self.scale * self.up(self.activation(self.down(x)))
        return result


def adapted_blocks(sam: Sam, config: BottleneckConfig) -> list[tuple[Any, int, int]]:
    """The encoder blocks from the configuration's first on, each with its channels and its bottleneck's width."""
    blocks = list(sam.image_encoder.blocks)[config.first_block :]
    channels = [block.norm1.weight.shape[0] for block in blocks]
    return [(block, size, config.channels(size)) for block, size in zip(blocks, channels, strict=True)]


def add_after(module: nn.Module, adapter: nn.Module) -> None:
    """From now on `module` gives out what `adapter` makes of its output."""
    module.adapter = adapter
    module.register_forward_hook(_after)


def add_beside(module: nn.Module, adapter: nn.Module) -> None:
    """From now on `module` adds to its output what `adapter` makes of its input."""
    module.adapter = adapter
    module.register_forward_hook(_beside)


def patterns(sam: Sam, config: BottleneckConfig) -> list[str]:
    """Patterns of the parameters that train: the adapters, and the norms of adapted blocks if so configured."""
    found = ["image_encoder.blocks.*.adapter.*"]
    if config.train_norms:
        blocks = range(config.first_block, len(sam.image_encoder.blocks))
        found += [f"image_encoder.blocks.{index}.{norm}.*" for index in blocks for norm in ("norm1", "norm2")]
    return found


def _after(module: Any, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    adapted: Tensor = module.adapter(output)
    return adapted


def _beside(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    added: Tensor = output + module.adapter(inputs[0])
    return added
