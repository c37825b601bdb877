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


class Tokens(NamedTuple):
    """What the relation module reads; B images, D decoder channels, L tokens of the image grid."""

    mask_token: Tensor  # (B, 1, D): the single-mask token after the two-way transformer
    features: Tensor  # (B, L, D): image embedding after the neck, row by row


class SamOutput(NamedTuple):
    """What one forward returns; letters as in `Tokens`."""

    logits: Tensor  # (B, 1, h, w), h = w = a quarter of the canvas for patch 16; foreground where > 0
    mask_token: Tensor
    predicted_iou: Tensor  # (B, 1): stale after tuning with the structure loss, so never rank masks by it
    features: Tensor

    @property
    def tokens(self) -> Tokens:
        """The part that relations are made of."""
        return Tokens(self.mask_token, self.features)


def forward(sam: Sam, images: Tensor, prompts: Prompts) -> SamOutput:
    """One mask per image: `images` (B, 3, S, S) normalised and padded, `prompts` with B rows in canvas pixels."""
    return decode(sam, sam.image_encoder(images), prompts)


def decode(sam: Sam, embeddings: Tensor, prompts: Prompts) -> SamOutput:
    """Masks from image embeddings (B, D, h, w) and B prompt sets; token 0 of the decoder, as for one mask."""
    decoder = sam.mask_decoder
    attended, source = _attend(sam, embeddings, prompts)
    logits = _masks(decoder, attended, source, 1)
    mask_token, features = _tokens(attended, embeddings)
    return SamOutput(logits, mask_token, decoder.iou_prediction_head(attended[:, 0])[:, :1], features)


def decode_tokens(sam: Sam, embeddings: Tensor, prompts: Prompts) -> Tokens:
    """As `decode` without the masks, which cost most of it."""
    return _tokens(_attend(sam, embeddings, prompts)[0], embeddings)


def decode_all(sam: Sam, embeddings: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """All masks the decoder knows: logits (B, 4, 4h, 4w) and predicted IoU (B, 4)."""
    decoder = sam.mask_decoder
    attended, source = _attend(sam, embeddings, prompts)
    return _masks(decoder, attended, source, decoder.num_mask_tokens), decoder.iou_prediction_head(attended[:, 0])


def embed_prompts(encoder: PromptEncoder, prompts: Prompts) -> Tensor:
    """(B, N, D) embeddings of points and box corners; equal to the package's for a box, or for padded points."""
    points, labels = prompts.points, prompts.labels
    with torch.autocast(points.device.type, enabled=False):  # half precision would move a point by a pixel
        embedded = encoder.pe_layer.forward_with_coords(points + 0.5, encoder.input_image_size)
    kinds = torch.stack([embedding.weight[0] for embedding in encoder.point_embeddings])
    padding = (labels == -1).unsqueeze(-1)
    return torch.where(padding, encoder.not_a_point_embed.weight, embedded + kinds[labels.clamp(min=0)])


def _attend(sam: Sam, embeddings: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """The two-way transformer: tokens (B, 5 + N, D), the first for IoU and the next four for masks, and the image
    (B, D, h, w)."""
    decoder, encoder = sam.mask_decoder, sam.prompt_encoder
    batch = embeddings.shape[0]
    learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([learned.expand(batch, -1, -1), embed_prompts(encoder, prompts)], dim=1)
    source = embeddings + encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    with torch.autocast(embeddings.device.type, enabled=False):
        position = encoder.get_dense_pe().expand(batch, -1, -1, -1)
    attended, source = decoder.transformer(source, position, tokens)
    return attended, source.transpose(1, 2).reshape(embeddings.shape)


def _masks(decoder: MaskDecoder, attended: Tensor, source: Tensor, count: int) -> Tensor:
    """Logits (B, count, 4h, 4w) of the first `count` mask tokens."""
    upscaled = decoder.output_upscaling(source)
    networks = decoder.output_hypernetworks_mlps[:count]
    weights = torch.stack([mlp(attended[:, 1 + i]) for i, mlp in enumerate(networks)], dim=1)
    # Channels stay last in memory, as the transformer left them: GELU's way back is slow where two layouts meet.
    pixels = upscaled.permute(0, 2, 3, 1).flatten(1, 2) @ weights.transpose(1, 2)
    return pixels.transpose(1, 2).unflatten(2, upscaled.shape[2:])


def _tokens(attended: Tensor, embeddings: Tensor) -> Tokens:
    return Tokens(mask_token=attended[:, 1:2], features=embeddings.flatten(2).transpose(1, 2))
