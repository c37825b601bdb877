"""Prompts of images at evaluation; the released code's rules are written out here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from infosam.data.dataset import Batch
from infosam.data.prompts import Prompts
from infosam.data.transforms import prepare_mask, resized_hw, valid_mask
from infosam.protocol_prompts import evaluation_prompts, image_generator, shift_box
from infosam.protocols import OFFICIAL, STRICT, Prompt, ProtocolConfig, choose_protocol

CANVAS = 32
Mask = NDArray[np.bool_]


def rectangle(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (20, 32)) -> Mask:
    """Both ends inside."""
    mask = np.zeros(size, bool)
    mask[top : bottom + 1, left : right + 1] = True
    return mask


def prompted(masks: Sequence[Mask], prompt: Prompt, protocol: ProtocolConfig, first: int = 0) -> Prompts:
    """Prompts of images that stand in a split from position `first` on."""
    sizes = [resized_hw(*mask.shape, CANVAS) for mask in masks]
    batch = Batch(
        image=torch.zeros(len(masks), 3, CANVAS, CANVAS),
        mask=torch.stack([prepare_mask(mask, CANVAS, protocol) for mask in masks]),
        valid=torch.stack([valid_mask(size, CANVAS) for size in sizes]),
        original_hw=[(mask.shape[0], mask.shape[1]) for mask in masks],
        resized_hw=sizes,
        ids=[str(number) for number in range(len(masks))],
        indices=list(range(first, first + len(masks))),
        variants=[0] * len(masks),
    )
    return evaluation_prompts(masks, batch, prompt, protocol)


class TestShift:
    def test_it_moves_both_corners_alike_by_m_before_and_m_minus_1_after(self) -> None:
        box = torch.tensor([40.0, 50.0, 90.0, 100.0])
        shifts = torch.stack([shift_box(box, 5, torch.Generator().manual_seed(seed)) - box for seed in range(300)])
        assert torch.equal(shifts[:, :2], shifts[:, 2:])
        assert set(shifts[:, 0].tolist()) == set(shifts[:, 1].tolist()) == set(range(-5, 5))

    @pytest.mark.parametrize(("side", "reach_px"), [(2, 1), (4, 2), (7, 3), (9, 4), (30, 5)])
    def test_it_is_at_most_half_of_the_shorter_side(self, side: int, reach_px: int) -> None:
        assert reach_px == min(5, int(side * 0.1 * 5))  # get_single_box_from_mask(std=0.1, max_pixel=5)
        box = torch.tensor([40.0, 50.0, 40.0 + side, 90.0])
        moved = [float(shift_box(box, 5, torch.Generator().manual_seed(seed))[0] - 40) for seed in range(200)]
        assert (min(moved), max(moved)) == (-reach_px, reach_px - 1)

    @pytest.mark.parametrize("side", [0, 1])
    def test_thin_objects_stay_where_they_are(self, side: int) -> None:
        """The released code crashes on them: randint(0, 0)."""
        box = torch.tensor([10.0, 10.0, 10.0 + side, 50.0])
        assert torch.equal(shift_box(box, 5, torch.Generator().manual_seed(0)), box)

    def test_it_is_cut_at_zero_but_not_at_the_far_side(self) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in range(100)]
        near = torch.stack([shift_box(torch.tensor([0.0, 0.0, 30.0, 30.0]), 5, generator) for generator in generators])
        assert near.min() == 0
        assert near[:, 2:].min() == 25
        far = torch.stack([shift_box(torch.tensor([0.0, 0.0, 31.0, 31.0]), 5, generator) for generator in generators])
        assert far.max() == 35  # beyond a canvas of 32


class TestBoxes:
    def test_strict_is_exact(self) -> None:
        made = prompted([rectangle(3, 4, 9, 12)], "box", STRICT)
        assert made.points.tolist() == [[[4, 3], [12, 9]]]
        assert made.labels.tolist() == [[2, 3]]

    def test_official_is_a_shifted_box_around_all_objects(self) -> None:
        mask = rectangle(3, 4, 5, 8) | rectangle(12, 20, 16, 28)
        exact = torch.tensor([4.0, 3.0, 28.0, 16.0])
        boxes = torch.stack([prompted([mask], "box", OFFICIAL, first=index).points.view(4) for index in range(40)])
        shifts = boxes - exact
        assert torch.equal(shifts[:, 2:], shifts[:, 2:].round())
        assert shifts[:, 2:].min() >= -5
        assert shifts[:, 2:].max() <= 4
        assert len(shifts.unique(dim=0)) > 10

    def test_an_image_without_object(self) -> None:
        empty = np.zeros((20, 32), bool)
        assert prompted([empty], "box", OFFICIAL).points.tolist() == [[[0, 0], [0, 0]]]
        assert prompted([empty], "box", STRICT).points.tolist() == [[[0, 0], [31, 19]]]

    def test_jitter_is_seeded_and_stays_in_the_frame(self) -> None:
        masks = [rectangle(0, 0, 19, 31), rectangle(5, 5, 15, 15)]
        first, again, other = (
            prompted(masks, "box", choose_protocol("strict", jitter=0.2, seed=seed)).points for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert first[0].min() >= 0
        assert first[0, 1].tolist() <= [31, 19]
        assert (first[1] - torch.tensor([[5.0, 5.0], [15.0, 15.0]])).abs().max() <= 2


class TestPoints:
    @pytest.mark.parametrize("protocol", [STRICT, OFFICIAL], ids=["strict", "official"])
    def test_two_lie_on_the_object_and_three_beside_it(self, protocol: ProtocolConfig) -> None:
        mask = rectangle(3, 4, 9, 12)
        on_canvas = prepare_mask(mask, CANVAS)
        made = prompted([mask] * 20, "points", protocol)
        assert made.labels.tolist() == [[1, 1, 0, 0, 0, -1]] * 20  # and SAM's padding point
        for points, labels in zip(made.points, made.labels, strict=True):
            for (x, y), label in zip(points.long().tolist(), labels.tolist(), strict=True):
                assert label == -1 or bool(on_canvas[y, x]) is (label == 1)

    def test_only_official_puts_points_on_padding(self) -> None:
        def lowest(protocol: ProtocolConfig) -> float:
            made = prompted([rectangle(3, 4, 9, 12)] * 30, "points", protocol)
            return float(made.points[..., 1].max())

        assert lowest(STRICT) <= 19
        assert lowest(OFFICIAL) > 19


class TestChance:
    @pytest.mark.parametrize("prompt", ["box", "points"])
    def test_an_image_has_its_own(self, prompt: Prompt) -> None:
        masks = [rectangle(3, 4, 9, 12 + number) for number in range(4)]
        together = prompted(masks, prompt, OFFICIAL).points
        alone = torch.cat([prompted([mask], prompt, OFFICIAL, first=index).points for index, mask in enumerate(masks)])
        assert torch.equal(together, alone)

    def test_seed_and_position_both_count(self) -> None:
        def draw(seed: int, index: int) -> Tensor:
            return torch.rand(4, generator=image_generator(seed, index))

        assert torch.equal(draw(1, 2), draw(1, 2))
        assert not torch.equal(draw(1, 2), draw(2, 1))
        assert not torch.equal(draw(1, 2), draw(1, 3))


def test_no_prompt_is_the_frame_under_any_protocol() -> None:
    for protocol in (STRICT, OFFICIAL):
        assert prompted([rectangle(3, 4, 9, 12)], "none", protocol).points.tolist() == [[[0, 0], [31, 19]]]
