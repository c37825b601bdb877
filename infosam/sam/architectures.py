"""The sizes of SAM: the three official ones and vit_nano, all built from segment_anything's own classes.

The only place that knows widths, depths and the SHA-256 sums of published weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from infosam.data.transforms import PIXEL_MEAN, PIXEL_STD
from infosam.errors import ConfigError
from infosam.sam.attention import swap_attention


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that fixes the shapes of a SAM, and the sum of its published weights."""

    name: str
    image_px: int  # side of the square canvas
    patch_px: int  # side of one image token
    width: int  # channels of the image encoder
    depth: int  # blocks of the image encoder
    heads: int
    global_blocks: tuple[int, ...]  # blocks that attend over the whole canvas; the others over windows
    window: int  # side of an attention window in tokens
    decoder_width: int  # channels after the neck, of prompts and of the mask decoder
    sha256: str | None = None  # of the published checkpoint file

    @property
    def grid(self) -> int:
        """Tokens along one side of the canvas."""
        return self.image_px // self.patch_px

    @property
    def mask_px(self) -> int:
        """Longest side of the masks that the decoder computes."""
        return 4 * self.grid


# Sums of sam_vit_{b_01ec64,l_0b3195,h_4b8939}.pth as published with segment-anything 1.0.
ARCHITECTURES = {
    "vit_b": Architecture(
        name="vit_b", image_px=1024, patch_px=16, width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11),
        window=14, decoder_width=256,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": Architecture(
        name="vit_l", image_px=1024, patch_px=16, width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23),
        window=14, decoder_width=256,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": Architecture(
        name="vit_h", image_px=1024, patch_px=16, width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31),
        window=14, decoder_width=256,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    "vit_nano": Architecture(
        name="vit_nano", image_px=192, patch_px=8, width=128, depth=6, heads=4, global_blocks=(2, 5),
        window=8, decoder_width=128,
    ),
}  # fmt: skip


def architecture(name: str, image_px: int | None = None) -> Architecture:
    """The architecture called `name`, on a canvas of `image_px` if given. Raises ConfigError."""
    if name not in ARCHITECTURES:
        raise ConfigError(f"model.name must be one of {', '.join(ARCHITECTURES)}, got {name!r}")
    found = ARCHITECTURES[name]
    if image_px is None:
        return found
    if image_px % found.patch_px:
        raise ConfigError(
            f"model.image_px must be a multiple of the patch size {found.patch_px} of {name}, got {image_px}"
        )
    return replace(found, image_px=image_px)


def build_sam(spec: Architecture) -> Sam:
    """A randomly initialised SAM of the given shape, in eval mode, from the classes of segment_anything 1.0.

    Draws from torch's global random state and leaves it as it was."""
    with torch.random.fork_rng(devices=[]):
        sam = _assemble(spec).eval()
    swap_attention(sam)
    return sam


def _assemble(spec: Architecture) -> Sam:
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=spec.image_px,
            patch_size=spec.patch_px,
            embed_dim=spec.width,
            depth=spec.depth,
            num_heads=spec.heads,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=spec.global_blocks,
            window_size=spec.window,
            out_chans=spec.decoder_width,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=spec.decoder_width,
            image_embedding_size=(spec.grid, spec.grid),
            input_image_size=(spec.image_px, spec.image_px),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=spec.decoder_width, mlp_dim=8 * spec.decoder_width, num_heads=8
            ),
            transformer_dim=spec.decoder_width,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
