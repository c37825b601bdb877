from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infosam.config import PromptConfig
from infosam.data.prompts import (
    Prompts,
    box_of,
    box_prompt,
    frame_prompt,
    mixed_prompts,
    point_prompt,
    several_points_prompt,
    training_prompts,
)

S = 32


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Tensor:
    mask = torch.zeros(S, S, dtype=torch.bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


MASKS = torch.stack([rectangle(3, 5, 20, 9), rectangle(0, 0, S - 1, S - 1), rectangle(7, 8, 7, 8)])
EMPTY = torch.zeros(1, S, S, dtype=torch.bool)


def test_a_box_is_the_first_and_last_pixel() -> None:
    assert box_of(MASKS[0]).tolist() == [3, 5, 20, 9]
    assert box_of(MASKS[2]).tolist() == [7, 8, 7, 8]
    two_parts = rectangle(1, 2, 3, 4) | rectangle(10, 20, 12, 25)
    assert box_of(two_parts).tolist() == [1, 2, 12, 25]


def test_a_box_of_a_picture_that_is_not_square() -> None:
    mask = torch.zeros(4, 9, dtype=torch.bool)
    mask[1, 7] = True
    assert box_of(mask).tolist() == [7, 1, 7, 1]


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="no box"):
        box_of(EMPTY[0])


def test_the_frame_is_the_box_of_the_valid_pixels() -> None:
    prompts = frame_prompt([(20, 32), (32, 11)])
    assert prompts.points.tolist() == [[[0, 0], [31, 19]], [[0, 0], [10, 31]]]
    assert prompts.labels.tolist() == [[2, 3], [2, 3]]
    assert prompts.points.dtype == torch.float32
    assert prompts.labels.dtype == torch.int64


def test_exact_boxes_need_no_chance() -> None:
    prompts = box_prompt(MASKS, jitter=0, generator=None)
    assert prompts.points.tolist() == [[[3, 5], [20, 9]], [[0, 0], [31, 31]], [[7, 8], [7, 8]]]
    assert prompts.labels.tolist() == [[2, 3]] * 3


def test_jitter_without_a_generator_or_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a generator"):
        box_prompt(MASKS, jitter=0.1, generator=None)
    with pytest.raises(ValueError, match=r"must be >= 0, got -0\.1"):
        box_prompt(MASKS, jitter=-0.1, generator=generator())


def test_jitter_stays_in_bounds_and_uses_them() -> None:
    masks = rectangle(10, 12, 20, 16).repeat(2000, 1, 1)
    shift = box_prompt(masks, jitter=0.25, generator=generator()).points.view(-1, 4) - torch.tensor([10, 12, 20, 16])
    largest = torch.tensor([2.5, 1.0, 2.5, 1.0])
    assert (shift.abs() <= largest + 1e-5).all()
    assert (shift.abs().amax(0) > 0.95 * largest).all()
    assert (shift.mean(0).abs() < 0.1 * largest).all()


def test_jittered_boxes_stay_inside_the_frame_and_open() -> None:
    masks = torch.cat([rectangle(0, 0, 15, 10)[None], MASKS[2:], rectangle(14, 0, 15, 10)[None]]).repeat(500, 1, 1)
    frame = [(11, 16)] * len(masks)
    points = box_prompt(masks, jitter=0.5, generator=generator(), resized_hw=frame).points
    assert (points >= 0).all()
    assert (points <= torch.tensor([15.0, 10.0])).all()
    assert (points[:, 1] - points[:, 0] >= 1).all()


def test_an_empty_mask_gets_the_frame() -> None:
    frame = frame_prompt([(20, 32)])
    for prompts in (
        box_prompt(EMPTY, jitter=0, generator=None, resized_hw=[(20, 32)]),
        point_prompt(EMPTY, generator=generator(), resized_hw=[(20, 32)]),
        mixed_prompts(EMPTY, [(20, 32)], PromptConfig(box=0.5, point=0.5, none=0, box_jitter=0), generator=generator()),
    ):
        assert torch.equal(prompts.points, frame.points)
        assert torch.equal(prompts.labels, frame.labels)
    assert box_prompt(EMPTY, jitter=0, generator=None).points.tolist() == [[[0, 0], [31, 31]]]


def test_points_lie_in_the_mask_and_reach_all_of_it() -> None:
    masks = rectangle(4, 6, 6, 7).repeat(300, 1, 1)
    prompts = point_prompt(masks, generator=generator())
    assert prompts.labels.tolist() == [[1, -1]] * 300
    assert {tuple(point) for point in prompts.points[:, 0].tolist()} == {(x, y) for x in (4, 5, 6) for y in (6, 7)}


def test_mixed_prompts_follow_their_shares() -> None:
    masks = rectangle(3, 5, 20, 9).repeat(3000, 1, 1)
    shares = PromptConfig(box=0.5, point=0.2, none=0.3, box_jitter=0)
    prompts = mixed_prompts(masks, [(S, S)] * 3000, shares, generator=generator())
    point = prompts.labels[:, 0] == 1
    frame = (prompts.labels[:, 0] == 2) & (prompts.points[:, 1, 0] == S - 1)
    assert point.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert frame.float().mean().item() == pytest.approx(0.3, abs=0.03)
    boxes = prompts.points[~point & ~frame].view(-1, 4)
    assert torch.equal(boxes, torch.tensor([3.0, 5.0, 20.0, 9.0]).expand_as(boxes))


@pytest.mark.parametrize(("kind", "labels"), [("box", [2, 3]), ("point", [1, -1]), ("none", [2, 3])])
def test_a_share_of_one_is_always_that_kind(kind: str, labels: list[int]) -> None:
    shares = PromptConfig(**{"box": 0.0, "point": 0.0, "none": 0.0, kind: 1.0, "box_jitter": 0})
    masks = MASKS[:1].repeat(200, 1, 1)
    prompts = mixed_prompts(masks, [(20, 32)] * 200, shares, generator=generator())
    assert prompts.labels.tolist() == [labels] * 200
    if kind == "none":
        assert torch.equal(prompts.points, frame_prompt([(20, 32)] * 200).points)


def test_prompts_repeat_with_their_seed_and_only_with_it() -> None:
    def draw(seed: int) -> Tensor:
        return mixed_prompts(MASKS, [(S, S)] * 3, PromptConfig(box_jitter=0.3), generator=generator(seed)).points

    state = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert any(not torch.equal(draw(1), draw(seed)) for seed in range(2, 6))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone


def test_the_generator_advances_alike_whatever_the_masks() -> None:
    first, second = generator(), generator()
    mixed_prompts(MASKS, [(S, S)] * 3, PromptConfig(), generator=first)
    mixed_prompts(EMPTY.repeat(3, 1, 1), [(S, S)] * 3, PromptConfig(), generator=second)
    assert torch.equal(first.get_state(), second.get_state())


class TestSeveralPoints:
    def test_points_lie_where_their_labels_say(self) -> None:
        masks = MASKS[[0, 2]]
        prompts = several_points_prompt(masks, inside=3, outside=4, generator=generator(), resized_hw=[(S, S)] * 2)
        assert prompts.points.shape == (2, 8, 2)
        assert prompts.labels.tolist() == [[1, 1, 1, 0, 0, 0, 0, -1]] * 2
        for mask, points, labels in zip(masks, prompts.points, prompts.labels, strict=True):
            for (x, y), label in zip(points.long().tolist(), labels.tolist(), strict=True):
                if label >= 0:
                    assert mask[y, x].item() == bool(label)

    def test_background_means_the_valid_frame(self) -> None:
        masks = torch.zeros(1, S, S, dtype=torch.bool)
        masks[0, 2, 3] = True
        prompts = several_points_prompt(masks, inside=1, outside=30, generator=generator(), resized_hw=[(5, 7)])
        outside = prompts.points[0, 1:31]
        assert outside[:, 0].max() < 7
        assert outside[:, 1].max() < 5

    def test_what_is_not_there_is_padding(self) -> None:
        full, empty = torch.ones(1, S, S, dtype=torch.bool), torch.zeros(1, S, S, dtype=torch.bool)
        both = torch.cat([full, empty])
        prompts = several_points_prompt(both, inside=1, outside=1, generator=generator(), resized_hw=[(S, S)] * 2)
        assert prompts.labels.tolist() == [[1, -1, -1], [-1, 0, -1]]


class TestTrainingPrompts:
    def draw(self, shares: PromptConfig, seeds: list[int], batch_seed: int = 0) -> Prompts:
        return training_prompts(MASKS[: len(seeds)], [(S, S)] * len(seeds), shares, batch_seed=batch_seed, seeds=seeds)

    def test_a_part_of_a_batch_gets_the_prompts_of_the_whole(self) -> None:
        shares = PromptConfig(box_jitter=0.3)
        whole = self.draw(shares, [5, 6, 7])
        part = training_prompts(MASKS[1:], [(S, S)] * 2, shares, batch_seed=0, seeds=[6, 7])
        assert torch.equal(whole.points[1:], part.points)
        assert torch.equal(whole.labels[1:], part.labels)

    def test_several_points_come_to_all_samples_or_none(self) -> None:
        shares = PromptConfig(box=0.5, point=0, points=0.5, none=0, points_inside=2, points_outside=1)
        lengths = [self.draw(shares, [1, 2, 3], batch_seed=seed).labels.shape[1] for seed in range(60)]
        assert set(lengths) == {2, 4}
        assert 15 < lengths.count(4) < 45
        assert all(
            self.draw(shares, [1, 2, 3], batch_seed=seed).labels[2].tolist() == [1, 1, 0, -1]
            for seed, length in enumerate(lengths)
            if length == 4
        )

    def test_only_several_points(self) -> None:
        shares = PromptConfig(box=0, point=0, points=1, none=0)
        assert self.draw(shares, [1, 2, 3]).labels.shape == (3, 6)
