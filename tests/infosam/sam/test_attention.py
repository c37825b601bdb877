"""The fused attention gives what segment_anything's own gives: values, gradients, windows, copies and saved weights."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention
from segment_anything.modeling.transformer import Attention as DecoderAttention
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from infosam.sam import attention
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.attention import FusedAttention, TurnedAttention, position_codes, restore_attention


def pair(height: int, width: int, *, relative: bool = True, heads: int = 3) -> tuple[Attention, Attention]:
    """The package's attention over a grid, and ours with the same weights."""
    torch.manual_seed(0)
    plain = Attention(24, heads, qkv_bias=True, use_rel_pos=relative, input_size=(height, width))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.normal_(0, 0.3)
    fused = copy.deepcopy(plain)
    fused.__class__ = FusedAttention
    return plain, fused


def grid(height: int, width: int) -> Tensor:
    return torch.randn(2, height, width, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (7, 5), (1, 9), (14, 14)])
@pytest.mark.parametrize("relative", [True, False])
def test_values_with_and_without_gradients(height: int, width: int, relative: bool) -> None:
    plain, fused = pair(height, width, relative=relative)
    expected, given = plain(grid(height, width)), fused(grid(height, width))
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(fused(grid(height, width)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(6, 5), (20, 21)])  # two products, and the fused kernel for many tokens
def test_gradients_of_input_and_of_every_parameter(height: int, width: int) -> None:
    plain, fused = pair(height, width)
    gradients = []
    for block in (plain, fused):
        x = grid(height, width).requires_grad_()
        block(x).square().mean().backward()
        gradients.append({"x": x.grad, **{name: parameter.grad for name, parameter in block.named_parameters()}})
    for name, expected in gradients[0].items():
        assert expected is not None
        torch.testing.assert_close(
            gradients[1][name], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()), msg=name
        )


def test_autocast_stays_close() -> None:
    plain, fused = pair(6, 5)
    expected = plain(grid(6, 5))
    with torch.autocast("cpu", torch.bfloat16):
        given = fused(grid(6, 5))
    assert given.dtype == torch.bfloat16
    assert (given.float() - expected).norm() / expected.norm() < 0.02


def test_scores_computed_again_give_the_same_gradients_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 20, 8, generator=generator, dtype=torch.bfloat16) for _ in range(3))
    gradients = []
    for form in (attention.plain, attention.recomputed):
        own = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        form(*own).float().square().sum().backward()
        gradients.append([tensor.grad for tensor in own])
    for kept, again in zip(*gradients, strict=True):
        assert kept is not None
        assert torch.equal(kept, again)


def test_every_token_knows_its_row_and_column() -> None:
    codes = position_codes(2, 3, torch.float32, torch.device("cpu"))
    assert codes.argmax(dim=1).tolist() == [0, 0, 0, 1, 1, 1]
    assert codes[:, 2:].argmax(dim=1).tolist() == [0, 1, 2, 0, 1, 2]
    assert (codes.sum(dim=1) == 2).all()


@pytest.mark.parametrize(("queries", "keys"), [(40, 7), (7, 40), (7, 7)])
def test_the_decoders_values_and_gradients(queries: int, keys: int) -> None:
    torch.manual_seed(0)
    package = DecoderAttention(32, 4, downsample_rate=2)
    ours = copy.deepcopy(package)
    ours.__class__ = TurnedAttention
    shown = [torch.randn(2, count, 32) for count in (queries, keys, keys)]
    results = []
    for block in (package, ours):
        own = [tensor.clone().requires_grad_() for tensor in shown]
        out = block(*own)
        out.square().mean().backward()
        results.append([out, *(tensor.grad for tensor in own), *(parameter.grad for parameter in block.parameters())])
    for expected, given in zip(*results, strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)


def test_a_built_sam_and_its_copies_have_our_forms_and_give_them_back() -> None:
    sam = build_sam(architecture("vit_nano", 64))
    for one in (sam, copy.deepcopy(sam)):
        found = Counter(type(module) for module in one.modules())
        assert (found[FusedAttention], found[TurnedAttention]) == (len(sam.image_encoder.blocks), 7)
        assert not {Attention, DecoderAttention} & found.keys()
    restore_attention(sam)
    found = Counter(type(module) for module in sam.modules())
    assert (found[Attention], found[DecoderAttention]) == (len(sam.image_encoder.blocks), 7)
    assert not {FusedAttention, TurnedAttention} & found.keys()


@torch.no_grad()
def test_an_encoder_with_padded_windows_equals_the_packages() -> None:
    sam = build_sam(architecture("vit_nano", 96))  # 12 tokens a side, windows of 8
    generator = torch.Generator().manual_seed(0)
    for parameter in sam.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    package = copy.deepcopy(sam)
    restore_attention(package)
    image = torch.randn(1, 3, 96, 96, generator=generator)
    torch.testing.assert_close(sam.image_encoder(image), package.image_encoder(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("tokens", "dtype", "gradients", "form"),
    [
        (64, torch.bfloat16, True, "plain"),
        (400, torch.bfloat16, True, "recomputed"),
        (400, torch.bfloat16, False, "fused"),
        (400, torch.float32, True, "fused"),
        (1024, torch.bfloat16, True, "fused"),
    ],
)
def test_the_form_goes_by_size_precision_and_gradients(
    tokens: int, dtype: torch.dtype, gradients: bool, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    for name in ("plain", "recomputed", "fused"):
        monkeypatch.setattr(attention, name, lambda query, key, value, name=name: taken.append(name))
    query = torch.zeros(1, 1, tokens, 8, dtype=dtype)
    with torch.set_grad_enabled(gradients):
        attention._mixed(query, query, query)
    assert taken == [form]


def test_where_no_fused_kernel_exists_the_same_call_gives_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 20, size, generator=generator) for size in (13, 13, 8))
    with sdpa_kernel(SDPBackend.MATH):  # what torch falls back to
        unfused = attention.fused(query, key, value)
    torch.testing.assert_close(unfused, attention.plain(query, key, value), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unfused, attention.fused(query, key, value), rtol=1e-5, atol=1e-5)
