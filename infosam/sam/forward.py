"""A typed forward over segment_anything's modules that decodes a whole batch, one prompt set per image.

`MaskDecoder.predict_masks` of the package repeats every image embedding once per prompt, so it cannot decode several
images at once; this forward can, and equals it image by image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from torch import Tensor

from infosam.data.prompts import Prompts


class SamOutput(NamedTuple):
    """What one forward returns; B images, D decoder channels, L tokens of the image grid."""

    logits: Tensor  # (B, 1, h, w), h = w = a quarter of the canvas for patch 16; foreground where > 0
    mask_token: Tensor  # (B, 1, D): the single-mask token after the two-way transformer
    predicted_iou: Tensor  # (B, 1): stale after tuning with the structure loss, so never rank masks by it
    features: Tensor  # (B, L, D): image embedding after the neck, row by row


def forward(sam: Sam, images: Tensor, prompts: Prompts) -> SamOutput:
    """One mask per image: `images` (B, 3, S, S) normalised and padded, `prompts` with B rows in canvas pixels."""
    return decode(sam, sam.image_encoder(images), prompts)


def decode(sam: Sam, embeddings: Tensor, prompts: Prompts) -> SamOutput:
    """Masks from image embeddings (B, D, h, w) and B prompt sets; token 0 of the decoder, as for one mask."""
    sparse = embed_prompts(sam.prompt_encoder, prompts)
    logits, tokens, predicted_iou = decode_tokens(sam.mask_decoder, sam.prompt_encoder, embeddings, sparse)
    return SamOutput(
        logits=logits[:, :1],
        mask_token=tokens[:, :1],
        predicted_iou=predicted_iou[:, :1],
        features=embeddings.flatten(2).transpose(1, 2),
    )


def embed_prompts(encoder: PromptEncoder, prompts: Prompts) -> Tensor:
    """(B, N, D) embeddings of points and box corners; equal to the package's for a box, or for padded points."""
    points, labels = prompts.points, prompts.labels
    with torch.autocast(points.device.type, enabled=False):  # half precision would move a point by a pixel
        embedded = encoder.pe_layer.forward_with_coords(points + 0.5, encoder.input_image_size)
    kinds = torch.stack([embedding.weight[0] for embedding in encoder.point_embeddings])
    padding = (labels == -1).unsqueeze(-1)
    return torch.where(padding, encoder.not_a_point_embed.weight, embedded + kinds[labels.clamp(min=0)])


def decode_tokens(
    decoder: MaskDecoder, encoder: PromptEncoder, embeddings: Tensor, sparse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All mask tokens of a batch: logits (B, 4, 4h, 4w), tokens (B, 4, D), predicted IoU (B, 4)."""
    batch, channels, height, width = embeddings.shape
    learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([learned.expand(batch, -1, -1), sparse], dim=1)
    source = embeddings + encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    with torch.autocast(embeddings.device.type, enabled=False):
        position = encoder.get_dense_pe().expand(batch, -1, -1, -1)
    attended, source = decoder.transformer(source, position, tokens)
    mask_tokens = attended[:, 1 : 1 + decoder.num_mask_tokens]
    upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(batch, channels, height, width))
    weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    logits = torch.einsum("bkc,bchw->bkhw", weights, upscaled)
    return logits, mask_tokens, decoder.iou_prediction_head(attended[:, 0])
