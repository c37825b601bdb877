"""Puts a PEFT method into a SAM, freezes everything, and opens exactly the declared parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from segment_anything.modeling import Sam

from infosam.errors import ConfigError
from infosam.peft import (
    adapter,
    adaptformer,
    bitfit,
    conv_lora,
    dora,
    full,
    ia3,
    library,
    loha,
    lora,
    norm,
    parallel,
    rslora,
)
from infosam.peft.config import PeftConfig
from infosam.sam.architectures import Architecture, build_sam


class Files(NamedTuple):
    """A file format for the parameters that a kind adds, on disk and back."""

    save: Callable[[Sam, Path], None]
    load: Callable[[Sam, Path], None]
    owns: Callable[[str], bool]  # whether the parameter of this name is in these files


class Method(NamedTuple):
    """How one kind of PEFT gets in, how onto disk if the peft library has files for it, and how into SAM's weights."""

    inject: Callable[[Sam, Any], list[str]]
    files: Files | None = None
    merge: Callable[[Sam], None] | None = None  # None: no weights of a plain SAM equal it


def _of_library(inject: Callable[[Sam, Any], list[str]]) -> Method:
    return Method(inject, Files(library.save, library.load, library.owns), library.merge)


def _plain(inject: Callable[[Sam, Any], list[str]]) -> Method:
    """A kind that adds no module, so that there is nothing to merge."""
    return Method(inject, merge=lambda _sam: None)


METHODS: Mapping[str, Method] = {
    "lora": _of_library(lora.inject),
    "dora": _of_library(dora.inject),
    "rslora": _of_library(rslora.inject),
    "loha": _of_library(loha.inject),
    "ia3": _of_library(ia3.inject),
    "conv_lora": Method(conv_lora.inject),
    "adapter": Method(adapter.inject),
    "parallel": Method(parallel.inject),
    "adaptformer": Method(adaptformer.inject),
    "bitfit": _plain(bitfit.inject),
    "norm": _plain(norm.inject),
    "full": _plain(full.inject),
    "decoder": _plain(lambda _sam, _config: []),
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
    device = next(sam.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        patterns = METHODS[config.kind].inject(sam, config)
    sam.to(device)
    return open_parameters(sam, [*patterns, *DECODER_PATTERNS])


def merge(sam: Sam, config: PeftConfig) -> None:
    """Folds what `inject` added into SAM's own weights, in place: the same function, up to rounding, without adapters.

    Raises ConfigError for a kind that no weights of a plain SAM can equal; `sam` is then as it was."""
    method = METHODS[config.kind]
    if method.merge is None:
        able = ", ".join(kind for kind, each in METHODS.items() if each.merge is not None)
        raise ConfigError(
            f"peft.kind={config.kind} cannot be merged: what it adds is not linear in its input, so no weights of a "
            f"plain SAM equal it; kinds that can: {able}"
        )
    method.merge(sam)


def count_trainable(spec: Architecture, config: PeftConfig) -> dict[str, int]:
    """Numbers of trainable parameters in the "encoder" and the "decoder"; without weights, memory or a forward."""
    with torch.device("meta"):
        sam = build_sam(spec)
        names = inject(sam, config, seed=0)
    counts = {"encoder": 0, "decoder": 0}
    for name in names:
        counts["encoder" if name.startswith("image_encoder.") else "decoder"] += sam.get_parameter(name).numel()
    return counts


def first_trained_block(sam: Sam, trainable: Sequence[str]) -> int | None:
    """The first block of the image encoder that training these parameters changes: its depth if only the neck does,
    None if nothing in the encoder does."""
    inside = [name.removeprefix("image_encoder.") for name in trainable if name.startswith("image_encoder.")]
    if not inside:
        return None
    parts = [name.split(".") for name in inside if not name.startswith("neck.")]
    blocks = [int(part[1]) if part[0] == "blocks" else 0 for part in parts]
    return min(blocks, default=len(sam.image_encoder.blocks))


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
