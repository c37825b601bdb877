"""Puts a PEFT method into a SAM, freezes everything, and opens exactly the declared parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from segment_anything.modeling import Sam

from infosam.config import PeftConfig
from infosam.errors import ConfigError
from infosam.peft import adapter, lora


class Method(NamedTuple):
    """How one kind of PEFT gets in and, if the peft library has a file format for it, onto disk and back."""

    inject: Callable[[Sam, Any], list[str]]
    save: Callable[[Sam, Path], None] | None = None
    load: Callable[[Sam, Path], None] | None = None


METHODS: Mapping[str, Method] = {
    "lora": Method(lora.inject, lora.save, lora.load),
    "adapter": Method(adapter.inject),
    "decoder": Method(lambda _sam, _config: []),
}

# The whole decoder as far as one mask per prompt uses it: the IoU head and the heads of the three other masks get no
# gradient from a mask loss, so they stay frozen rather than trainable in name only.
DECODER_PATTERNS = (
    "mask_decoder.transformer.*",
    "mask_decoder.iou_token.weight",
    "mask_decoder.mask_tokens.weight",
    "mask_decoder.output_upscaling.*",
    "mask_decoder.output_hypernetworks_mlps.0.*",
)


def inject(sam: Sam, config: PeftConfig, *, seed: int) -> list[str]:
    """Adapts `sam` in place and freezes the rest; returns the names of all trainable parameters, in model order.

    `seed` decides the new weights; the global random state is left as it was. Raises ConfigError for a first block
    the encoder does not have."""
    depth = len(sam.image_encoder.blocks)
    first = getattr(config, "first_block", 0)
    if first >= depth:
        raise ConfigError(f"peft.first_block must be below {depth}, the encoder's number of blocks, got {first}")
    sam.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        patterns = METHODS[config.kind].inject(sam, config)
    return open_parameters(sam, [*patterns, *DECODER_PATTERNS])


def open_parameters(sam: Sam, patterns: Sequence[str]) -> list[str]:
    """Makes every parameter that matches a pattern trainable. Raises ValueError for a pattern that matches none."""
    parameters = dict(sam.named_parameters())
    chosen: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(parameters, pattern)
        if not matched:
            raise ValueError(f"trainable pattern {pattern!r} matches none of {len(parameters)} parameters")
        chosen.update(matched)
    for name in chosen:
        parameters[name].requires_grad_(True)
    return [name for name in parameters if name in chosen]
