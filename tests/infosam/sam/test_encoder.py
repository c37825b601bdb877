"""A frozen pass that is taken up where someone left it gives what the whole encoder gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infosam.sam.encoder import FrozenPass, encode, enter_block
from infosam.sam.weights import BaseSam


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("keep", [(), (2,), range(7)])
@torch.no_grad()
def test_in_any_order_with_anything_kept(tiny_base: BaseSam, images: Tensor, keep: tuple[int, ...]) -> None:
    encoder = tiny_base.sam.image_encoder
    frozen = FrozenPass(encoder, images, keep=keep)
    for number in (3, 0, 6, 2, 3, 1):
        assert torch.equal(frozen.enter(number), enter_block(encoder, images, number))
    assert torch.equal(frozen.embeddings(), encode(encoder, images))
    assert torch.equal(encode(encoder, frozen.enter(4), start=4), encode(encoder, images))


@torch.no_grad()
def test_some_images_go_on_alone(tiny_base: BaseSam, images: Tensor) -> None:
    encoder = tiny_base.sam.image_encoder
    frozen = FrozenPass(encoder, images, keep=(2,))
    frozen.enter(2)
    part = frozen.rows([2, 0])
    torch.testing.assert_close(part.embeddings(), encode(encoder, images[[2, 0]]))
    assert torch.equal(frozen.embeddings(), encode(encoder, images))


@torch.no_grad()
def test_no_block_runs_twice(tiny_base: BaseSam, images: Tensor) -> None:
    ran: list[int] = []
    blocks = tiny_base.sam.image_encoder.blocks
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number)) for number, block in enumerate(blocks)
    ]
    try:
        frozen = FrozenPass(tiny_base.sam.image_encoder, images, keep=(1, 3))
        frozen.enter(1)
        frozen.enter(3)
        frozen.embeddings()
    finally:
        for hook in hooks:
            hook.remove()
    assert ran == [0, 1, 2, 3, 4, 5]
