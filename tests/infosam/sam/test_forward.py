"""The batched forward equals segment_anything's own prompt encoder and mask decoder, image by image."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.data.prompts import Prompts
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.forward import SamOutput, decode, decode_all, decode_tokens, embed_prompts, forward

BOXES = torch.tensor([[4.0, 6.0, 40.0, 50.0], [0.0, 0.0, 63.0, 63.0], [10.5, 20.25, 30.0, 31.0]])
POINTS = torch.tensor([[[12.0, 30.0]], [[0.0, 63.0]], [[33.3, 7.5]]])


@pytest.fixture(scope="module")
def sam() -> Sam:
    """vit_nano on 64 px with random weights, so that no symmetry hides a mistake."""
    sam = build_sam(architecture("vit_nano", 64))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return sam


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def package(
    sam: Sam, image: Tensor, *, points: Tensor | None = None, labels: Tensor | None = None, box: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (1, 1, h, w) and predicted IoU (1, 1) of one image by the package's own forward functions."""
    given = (points[None], labels[None]) if points is not None and labels is not None else None
    sparse, dense = sam.prompt_encoder(points=given, boxes=None if box is None else box[None], masks=None)
    return sam.mask_decoder(
        image_embeddings=sam.image_encoder(image[None]),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )


def assert_equal(output: SamOutput, expected: list[tuple[Tensor, Tensor]]) -> None:
    logits, predicted_iou = (torch.cat(parts) for parts in zip(*expected, strict=True))
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.predicted_iou, predicted_iou, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_boxes(sam: Sam, images: Tensor) -> None:
    prompts = Prompts(points=BOXES.view(3, 2, 2), labels=torch.tensor([[2, 3]] * 3))
    expected = [package(sam, image, box=box) for image, box in zip(images, BOXES, strict=True)]
    assert_equal(forward(sam, images, prompts), expected)


@torch.no_grad()
def test_one_point_with_the_padding_that_the_package_adds(sam: Sam, images: Tensor) -> None:
    padded = torch.cat([POINTS, torch.zeros(3, 1, 2)], dim=1)
    kinds = torch.tensor([1, 0, 1])
    prompts = Prompts(points=padded, labels=torch.stack([kinds, -torch.ones(3, dtype=torch.int64)], dim=1))
    expected = [package(sam, images[i], points=POINTS[i], labels=kinds[i : i + 1]) for i in range(3)]
    assert_equal(forward(sam, images, prompts), expected)


@torch.no_grad()
def test_several_points(sam: Sam, images: Tensor) -> None:
    points = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(2)) * 63
    labels = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    padded = Prompts(
        points=torch.cat([points, torch.zeros(3, 1, 2)], dim=1),
        labels=torch.cat([labels, -torch.ones(3, 1, dtype=torch.int64)], dim=1),
    )
    expected = [package(sam, images[i], points=points[i], labels=labels[i]) for i in range(3)]
    assert_equal(forward(sam, images, padded), expected)


@torch.no_grad()
def test_points_and_a_box_together(sam: Sam, images: Tensor) -> None:
    points = torch.cat([POINTS, BOXES.view(3, 2, 2)], dim=1)
    prompts = Prompts(points=points, labels=torch.tensor([[1, 2, 3]] * 3))
    expected = [package(sam, images[i], points=POINTS[i], labels=torch.tensor([1]), box=BOXES[i]) for i in range(3)]
    assert_equal(forward(sam, images, prompts), expected)


@torch.no_grad()
def test_a_batch_of_boxes_and_points(sam: Sam, images: Tensor) -> None:
    points = BOXES.view(3, 2, 2).clone()
    points[1] = torch.tensor([[20.0, 21.0], [0.0, 0.0]])
    prompts = Prompts(points=points, labels=torch.tensor([[2, 3], [1, -1], [2, 3]]))
    expected = [
        package(sam, images[0], box=BOXES[0]),
        package(sam, images[1], points=points[1, :1], labels=torch.tensor([1])),
        package(sam, images[2], box=BOXES[2]),
    ]
    assert_equal(forward(sam, images, prompts), expected)


@torch.no_grad()
def test_all_mask_tokens_equal_the_package(sam: Sam, images: Tensor) -> None:
    prompts = Prompts(points=BOXES.view(3, 2, 2), labels=torch.tensor([[2, 3]] * 3))
    sparse = embed_prompts(sam.prompt_encoder, prompts)
    embeddings = sam.image_encoder(images)
    logits, predicted_iou = decode_all(sam, embeddings, prompts)
    own_sparse, dense = sam.prompt_encoder(points=None, boxes=BOXES, masks=None)
    torch.testing.assert_close(sparse, own_sparse)
    for i in range(3):
        expected, expected_iou = sam.mask_decoder.predict_masks(
            embeddings[i : i + 1], sam.prompt_encoder.get_dense_pe(), own_sparse[i : i + 1], dense[i : i + 1]
        )
        torch.testing.assert_close(logits[i : i + 1], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(predicted_iou[i : i + 1], expected_iou, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_output_says_what_it_is(sam: Sam, images: Tensor) -> None:
    prompts = Prompts(points=BOXES.view(3, 2, 2), labels=torch.tensor([[2, 3]] * 3))
    output = forward(sam, images, prompts)
    assert output.logits.shape == (3, 1, 32, 32)
    assert output.mask_token.shape == (3, 1, 128)
    assert output.predicted_iou.shape == (3, 1)
    assert output.features.shape == (3, 64, 128)
    embeddings = sam.image_encoder(images)
    assert torch.equal(output.features[:, 8 * 2 + 5], embeddings[:, :, 2, 5])  # row by row
    assert torch.equal(decode(sam, embeddings, prompts).logits, output.logits)
    for alone, beside in zip(decode_tokens(sam, embeddings, prompts), output.tokens, strict=True):
        assert torch.equal(alone, beside)


def test_gradients_reach_the_token(sam: Sam, images: Tensor) -> None:
    prompts = Prompts(points=BOXES.view(3, 2, 2), labels=torch.tensor([[2, 3]] * 3))
    embeddings = sam.image_encoder(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(decode(sam, embeddings, prompts).mask_token.sum(), embeddings)
    assert gradient.abs().sum() > 0
