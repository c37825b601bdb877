"""Conv-LoRA (Zhong et al., ICLR 2024): LoRA on qkv with a mixture of convolutions at several scales inside.

W x + scale * up(h + g_k E_k(h)) with h = down(x): expert E_k enlarges h k times, convolves it (3 x 3, GELU) and
shrinks it back; a gate on the mean of h chooses one expert per map. A map is what the projection sees: the whole image
in global blocks, a window in the others, as in the released code.

Deviations from the released code, which adds noise to the gate in training (noisy top-1, Shazeer et al. 2017): ours
has none, so that a run is a function of its weights and data and resumes bit for bit. Without noise the choice itself
has no gradient, so, as in the Switch Transformer (Fedus et al. 2022), the chosen expert is multiplied by its
probability g_k, through which the gate learns, and the load is balanced by their loss (equations 4 to 6).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor, nn

from infosam.distributed import gather_rows
from infosam.peft.config import ConvLoraConfig


class Expert(nn.Module):
    """A convolution on maps (N, r, h, w) enlarged `factor` times; the size stays."""

    def __init__(self, rank: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.convolution = nn.Conv2d(rank, rank, kernel_size=3, padding=1)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        """(N, r, h, w) -> (N, r, h, w); N may be 0."""
        if self.factor == 1:
            return F.gelu(self.convolution(maps))
        large = F.interpolate(maps, scale_factor=self.factor, mode="bicubic", align_corners=False)
        large = F.gelu(self.convolution(large))
        return F.interpolate(large, size=maps.shape[2:], mode="bicubic", align_corners=False)


class ConvLora(nn.Module):
    """The update of one projection from `inputs` to `outputs` channels."""

    def __init__(self, inputs: int, outputs: int, config: ConvLoraConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.balance_weight = config.balance
        self.down = nn.Linear(inputs, config.rank, bias=False)
        self.up = nn.Linear(config.rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)
        self.gate = nn.Linear(config.rank, config.experts, bias=False)
        self.experts = nn.ModuleList(Expert(config.rank, number) for number in range(1, config.experts + 1))
        self.probabilities: Tensor | None = None  # (N, experts) of the last forward in training

    def forward(self, x: Tensor) -> Tensor:
        """(N, h, w, inputs) -> (N, h, w, outputs)."""
        maps = self.down(x).permute(0, 3, 1, 2)
        probabilities = self.gate(maps.mean(dim=(2, 3))).float().softmax(dim=1)
        if self.training:
            self.probabilities = probabilities
        weights, chosen = probabilities.max(dim=1)
        maps = maps + weights.to(maps.dtype).reshape(-1, 1, 1, 1) * self._of_chosen(maps, chosen)
        update: Tensor = self.scale * self.up(maps.permute(0, 2, 3, 1))
        return update

    def _of_chosen(self, maps: Tensor, chosen: Tensor) -> Tensor:
        """What expert `chosen` (N,) makes of each map. An expert nobody chose works on no map, so that its gradient is
        0 instead of absent, as data-parallel training needs it."""
        result = torch.zeros_like(maps)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().squeeze(1)
            result = result.index_copy(0, rows, expert(maps[rows]).to(maps.dtype))
        return result

    def __getstate__(self) -> dict[str, Any]:
        """A copy starts without the memory of a forward, which torch could not copy: it is part of a graph."""
        return {**self.__dict__, "probabilities": None}


def inject(sam: Sam, config: ConvLoraConfig) -> list[str]:
    """Adds the updates in place; returns patterns of the parameters that train. The start point is SAM itself."""
    for block in list(sam.image_encoder.blocks)[config.first_block :]:
        projection = block.attn.qkv
        projection.conv_lora = ConvLora(projection.in_features, projection.out_features, config)
        projection.register_forward_hook(_add_update)
    return ["image_encoder.blocks.*.attn.qkv.conv_lora.*"]


def load_balance(probabilities: Tensor) -> Tensor:
    """Switch Transformer's loss for gate probabilities (N, experts): experts * sum of (share of maps that choose an
    expert) * (its mean probability). 1 if the load is even, up to the number of experts if one takes all."""
    experts = probabilities.shape[1]
    shares = F.one_hot(probabilities.argmax(dim=1), experts).float().mean(dim=0)
    return experts * (shares * probabilities.mean(dim=0)).sum()


def auxiliary_losses(sam: Sam) -> dict[str, Tensor]:
    """{"balance": weighted mean over blocks} of the last forward in training, which is then forgotten; else {}.

    In data-parallel training the load is that of the global batch, equal on all processes."""
    losses: list[Tensor] = []
    for module in sam.image_encoder.modules():
        if isinstance(module, ConvLora) and module.probabilities is not None:
            losses.append(module.balance_weight * load_balance(gather_rows(module.probabilities)))
            module.probabilities = None
    return {"balance": torch.stack(losses).mean()} if losses else {}


def _add_update(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    updated: Tensor = output + module.conv_lora(inputs[0])
    return updated
