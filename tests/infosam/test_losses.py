"""The losses against the published formulas, written a second time from the paper and the released code."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from infosam.losses import relation_compression, relation_distillation, structure_loss

Loss = Callable[..., Tensor]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same_value_and_gradients(ours: Loss, published: Loss, *inputs: Tensor) -> None:
    """To 1e-5 relative; the published one in float64."""
    own = [x.clone().requires_grad_() for x in inputs]
    other = [x.double().requires_grad_() for x in inputs]
    value, expected = ours(*own), published(*other)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    value.backward()
    expected.backward()
    for mine, theirs in zip(own, other, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        error = (mine.grad.double() - theirs.grad).abs().max()
        assert error <= 1e-5 * theirs.grad.abs().max(), f"gradients differ by {error}"


# ------------------------------------------------------------------------------------------- information terms


def published_gram(x: Tensor) -> Tensor:
    flat = x.reshape(x.shape[0], -1)
    flat = flat / flat.pow(2).sum(1, keepdim=True).sqrt()
    kernel = flat.mm(flat.t())
    return kernel / kernel.trace()


def minus_log_frobenius(matrix: Tensor) -> Tensor:
    return -torch.log(torch.sum(matrix * matrix)) / math.log(2)


def product_of(*grams: Tensor) -> Tensor:
    product = grams[0]
    for gram in grams[1:]:
        product = product * gram
    return product / product.trace()


def published_compression(features: Tensor, token: Tensor, relation: Tensor) -> Tensor:
    g_i, g_m, g_r = published_gram(features), published_gram(token), published_gram(relation)
    return minus_log_frobenius(g_r) - minus_log_frobenius(product_of(g_i, g_m, g_r))


def published_distillation(teacher: Tensor, student: Tensor) -> Tensor:
    g_t, g_s = published_gram(teacher), published_gram(student)
    return -(minus_log_frobenius(g_t) + minus_log_frobenius(g_s) - minus_log_frobenius(product_of(g_t, g_s)))


@pytest.mark.parametrize("images", [2, 4, 9])
def test_compression_is_the_published_formula(images: int) -> None:
    inputs = random(images, 12, 8, seed=0) + 1, random(images, 1, 8, seed=1) + 0.5, random(images, 12, seed=2) + 1
    assert_same_value_and_gradients(relation_compression, published_compression, *inputs)


@pytest.mark.parametrize("images", [2, 4, 9])
def test_distillation_is_the_published_formula(images: int) -> None:
    inputs = random(images, 12, seed=3) + 1, random(images, 12, seed=4) + 1
    assert_same_value_and_gradients(relation_distillation, published_distillation, *inputs)


def test_with_one_image_both_are_0() -> None:
    features, token, relation = random(1, 12, 8, seed=0), random(1, 1, 8, seed=1), random(1, 12, seed=2)
    assert relation_compression(features, token, relation).item() == pytest.approx(0, abs=1e-6)
    assert relation_distillation(relation, random(1, 12, seed=3)).item() == pytest.approx(0, abs=1e-6)


def test_distillation_lies_between_minus_log2_of_the_batch_and_0() -> None:
    independent = torch.eye(8)
    assert relation_distillation(independent, independent).item() == pytest.approx(-3, abs=1e-5)
    assert relation_distillation(independent, torch.ones(8, 8)).item() == pytest.approx(0, abs=1e-5)


def test_compression_cannot_exceed_0() -> None:
    """A joint entropy is never below the entropy of a part."""
    for seed in range(5):
        inputs = random(4, 6, 3, seed=seed), random(4, 1, 3, seed=seed + 10), random(4, 6, seed=seed + 20)
        assert relation_compression(*inputs) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_information_terms_are_float32_under_autocast(dtype: torch.dtype) -> None:
    features, token = random(4, 6, 3, seed=0).to(dtype), random(4, 1, 3, seed=1).to(dtype)
    relation, other = random(4, 6, seed=2).to(dtype), random(4, 6, seed=3).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = relation_compression(features, token, relation), relation_distillation(relation, other)
    plain = (
        relation_compression(features.float(), token.float(), relation.float()),
        relation_distillation(relation.float(), other.float()),
    )
    for value, expected in zip(values, plain, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)


# --------------------------------------------------------------------------------------------- structure loss


def local_mean(target: Tensor) -> Tensor:
    """Mean over 31 x 31 pixels of a (H, W) mask with zeros around it, by a summed-area table."""
    table = F.pad(target, (16, 15, 16, 15)).double().cumsum(0).cumsum(1)
    return ((table[31:, 31:] - table[:-31, 31:] - table[31:, :-31] + table[:-31, :-31]) / 31**2).to(target.dtype)


def weights(target: Tensor) -> Tensor:
    return torch.stack([1 + 5 * (local_mean(mask[0]) - mask[0]).abs() for mask in target]).unsqueeze(1)


def weighted_iou(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    inter = (probability * target * weight).sum()
    union = ((probability + target - probability * target) * weight).sum()
    return 1 - (inter + 1) / (union + 1)


def published_structure(target: Tensor, *, official: bool) -> Loss:
    """`official` calls torch exactly as the released code does, so torch itself decides what reduce="none" means."""

    def loss(logits: Tensor) -> Tensor:
        truth = target.to(logits.dtype)
        weight = weights(truth)
        if official:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                bce = F.binary_cross_entropy_with_logits(logits, truth, reduce="none")  # type: ignore[arg-type]
        else:
            bce = F.softplus(logits) - truth * logits
        weighted_bce = (weight * bce).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
        probability = 1 / (1 + torch.exp(-logits))
        each = [
            weighted_bce[image, 0] + weighted_iou(probability[image], truth[image], weight[image])
            for image in range(len(logits))
        ]
        return torch.stack(each).mean()

    return loss


@pytest.fixture
def target() -> Tensor:
    """(3, 1, 48, 40): a square, a line at the frame, nothing."""
    target = torch.zeros(3, 1, 48, 40)
    target[0, :, 10:30, 5:35] = 1
    target[1, :, :, 0:2] = 1
    return target


@pytest.mark.parametrize("variant", ["official", "weighted"])
def test_structure_loss_is_the_published_formula(variant: str, target: Tensor) -> None:
    logits = random(3, 1, 48, 40, seed=5) * 3
    published = published_structure(target, official=variant == "official")
    assert_same_value_and_gradients(lambda x: structure_loss(x, target, variant), published, logits)  # type: ignore[arg-type]


def test_the_official_cross_entropy_is_a_plain_mean(target: Tensor) -> None:
    """The quirk itself: the weights cancel, so only the IoU part knows of boundaries."""
    logits = random(3, 1, 48, 40, seed=6)
    iou_part = torch.stack([weighted_iou(logits[i].sigmoid(), target[i], weights(target)[i]) for i in range(3)]).mean()
    plain = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(structure_loss(logits, target, "official"), plain + iou_part, rtol=1e-5, atol=1e-6)
    assert structure_loss(logits, target, "weighted") != structure_loss(logits, target, "official")
    assert structure_loss(logits, target) == structure_loss(logits, target, "official")


@pytest.mark.parametrize("variant", ["official", "weighted"])
def test_a_perfect_prediction_costs_almost_nothing(variant: str, target: Tensor) -> None:
    perfect = structure_loss((target * 2 - 1) * 40, target, variant)  # type: ignore[arg-type]
    wrong = structure_loss((target * 2 - 1) * -40, target, variant)  # type: ignore[arg-type]
    assert perfect.item() == pytest.approx(0, abs=1e-6)
    assert wrong > 20


@pytest.mark.parametrize("variant", ["official", "weighted"])
def test_a_bool_target_and_gradients(variant: str, target: Tensor) -> None:
    small, logits = target[:, :, :9, :8], random(3, 1, 9, 8, seed=7).double().requires_grad_()
    assert structure_loss(logits, small.bool(), variant) == structure_loss(logits, small, variant)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda x: structure_loss(x, small, variant), (logits,))  # type: ignore[arg-type]


def test_another_variant_is_refused(target: Tensor) -> None:
    with pytest.raises(ValueError, match="variant must be 'official' or 'weighted', got 'wieghted'"):
        structure_loss(target, target, "wieghted")  # type: ignore[arg-type]
