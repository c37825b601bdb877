"""Presets and switches; the quirks of pictures and masks against the released code's steps, written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from infosam.data import transforms
from infosam.errors import ConfigError
from infosam.protocols import OFFICIAL, PROTOCOLS, STRICT, ProtocolConfig, choose_protocol

Picture = NDArray[np.uint8]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def rgb() -> Picture:
    """40 x 64, so a canvas of 32 has twelve rows of padding."""
    return np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)


class TestPresets:
    def test_two_presets_by_name(self) -> None:
        assert PROTOCOLS == {"strict": STRICT, "official": OFFICIAL}
        assert ProtocolConfig() == STRICT

    def test_official_differs_in_every_switch_that_the_released_code_turns(self) -> None:
        same = {name for name in ProtocolConfig.model_fields if getattr(OFFICIAL, name) == getattr(STRICT, name)}
        assert same == {"box_jitter", "points_inside", "points_outside", "seed"}

    def test_a_line_names_what_is_not_strict(self) -> None:
        assert STRICT.describe() == "strict protocol"
        line = OFFICIAL.describe()
        for text in ("official protocol: ", "channels bgr", "thresholds 0.1, 0.3, 0.5, 0.7, 0.9", "box_shift_px 5"):
            assert text in line

    def test_prompts_jitter_and_seed_can_be_chosen(self) -> None:
        roads = choose_protocol("official", prompts=["points", "points"], seed=3)
        assert (roads.prompts, roads.seed, roads.channels) == (("points",), 3, "bgr")
        jittered = choose_protocol("strict", jitter=0.1)
        assert (jittered.box_jitter, jittered.boxes_from) == (0.1, "canvas")
        assert "box_jitter 0.1" in jittered.describe()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"name": "paper"}, "the protocol must be one of strict, official, got 'paper'"),
            ({"name": "strict", "prompts": ["boxes"]}, "a prompt must be one of box, points, none, got 'boxes'"),
            ({"name": "strict", "jitter": 0.9}, "the jitter must be between 0 and 0.5 of the box's size, got 0.9"),
            ({"name": "official", "jitter": 0.1}, "use jitter with strict"),
        ],
    )
    def test_what_does_not_exist_is_refused(self, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            choose_protocol(**arguments)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "switches", [{"prompts": ("box", "box")}, {"box_jitter": 0.1}, {"box_shift_px": 2}, {"thresholds": ()}]
    )
    def test_switches_that_contradict_each_other(self, switches: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            ProtocolConfig.model_validate(switches)


class TestPixels:
    def test_official_is_the_released_preprocessing(self, rgb: Picture) -> None:
        bgr = np.ascontiguousarray(rgb[:, :, ::-1])  # as cv2.imread gives it
        resized = np.asarray(Image.fromarray(bgr).resize((32, 20), Image.Resampling.BILINEAR))
        padded = np.pad(resized, ((0, 12), (0, 0), (0, 0)))
        expected = (padded / 255 - np.array(MEAN)) / np.array(STD)
        found = transforms.prepare_image(rgb, 32, OFFICIAL)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)

    def test_bgr_alone(self, rgb: Picture) -> None:
        turned = transforms.prepare_image(rgb, 32, ProtocolConfig(channels="bgr"))
        assert torch.equal(turned, transforms.prepare_image(rgb[:, :, ::-1].copy(), 32))
        assert not torch.equal(turned, transforms.prepare_image(rgb, 32))

    def test_raw_padding_alone_is_about_minus_two(self, rgb: Picture) -> None:
        raw = transforms.prepare_image(rgb, 32, ProtocolConfig(padding="raw"))
        strict = transforms.prepare_image(rgb, 32)
        assert torch.equal(raw[:, :20], strict[:, :20])
        assert (strict[:, 20:] == 0).all()
        for channel, value in enumerate((-2.1179, -2.0357, -1.8044)):  # -mean / deviation
            torch.testing.assert_close(raw[channel, 20:], torch.full((12, 32), value), atol=1e-4, rtol=0)

    def test_bilinear_masks_are_rounded_and_may_vanish(self) -> None:
        bilinear = ProtocolConfig(mask_resize="bilinear")
        mask = np.zeros((64, 64), bool)
        mask[10:40, 20:50] = True
        expected = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((16, 16), Image.Resampling.BILINEAR)) == 1
        assert np.array_equal(transforms.resize_mask(mask, 16, bilinear), expected)
        thin = np.zeros((64, 64), bool)
        thin[30] = True
        assert transforms.resize_mask(thin, 16).any()
        assert not transforms.resize_mask(thin, 16, bilinear).any()
        assert np.array_equal(transforms.resize_mask(mask, 64, bilinear), mask)

    def test_strict_is_the_default_to_the_last_bit(self, rgb: Picture) -> None:
        assert torch.equal(transforms.prepare_image(rgb, 32), transforms.prepare_image(rgb, 32, STRICT))
        mask = rgb[:, :, 0] > 200
        assert torch.equal(transforms.prepare_mask(mask, 32), transforms.prepare_mask(mask, 32, STRICT))
