"""Full fine-tuning of the image encoder. It adds nothing, so the result is a plain SAM."""

from __future__ import annotations

from collections.abc import Iterator

from segment_anything.modeling import Sam

from infosam.peft.config import FullConfig


def inject(sam: Sam, config: FullConfig) -> list[str]:
    """Changes nothing; returns the names of all encoder parameters from the first block on."""
    return list(names_from(sam, config.first_block))


def names_from(sam: Sam, first_block: int) -> Iterator[str]:
    """Names of the encoder's parameters behind the frozen blocks, its neck included; what lies before the blocks
    counts only if no block is frozen."""
    frozen = [f"blocks.{index}." for index in range(first_block)]
    if first_block:
        frozen += ["patch_embed.", "pos_embed"]
    for name, _ in sam.image_encoder.named_parameters():
        if not name.startswith(tuple(frozen)):
            yield f"image_encoder.{name}"
