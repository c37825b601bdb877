"""What every kind of PEFT keeps, checked for all of them, with settings that all kinds have."""

from __future__ import annotations

import copy
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.bundle import export_bundle, read_bundle, restore
from infosam.config import AdapterConfig, DecoderOnlyConfig, LoraConfig, PeftConfig, RunConfig
from infosam.data.prompts import Prompts
from infosam.errors import ConfigError
from infosam.peft.inject import DECODER_PATTERNS, METHODS, inject, open_parameters
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt
from infosam.run_state import RunState, save_epoch
from infosam.sam.forward import forward
from infosam.sam.weights import BaseSam
from infosam.student import build_student
from infosam.training import Materials, make_optimizer

SETTINGS: dict[str, list[PeftConfig]] = {
    "lora": [LoraConfig(rank=2), LoraConfig(rank=3, alpha=6, first_block=2)],
    "adapter": [
        AdapterConfig(width=4),
        AdapterConfig(width=4, first_block=2, train_norms=False),
        AdapterConfig(width=4, zero_init=False),
    ],
    "decoder": [DecoderOnlyConfig()],
}
ALL = [config for configs in SETTINGS.values() for config in configs]
IN_THE_ENCODER = [config for config in ALL if hasattr(config, "first_block")]
IDENTITY_STARTS = [config for config in ALL if getattr(config, "zero_init", True)]


def named(config: Any) -> str:
    changed = config.model_dump(exclude_defaults=True)
    return "-".join([config.kind, *(f"{name}={value}" for name, value in changed.items())])


def batch() -> tuple[Tensor, Prompts]:
    """Two images and boxes on 64 px."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[[4.0, 6.0], [40.0, 50.0]], [[0.0, 0.0], [63.0, 63.0]]])
    return images, Prompts(points=points, labels=torch.tensor([[2, 3], [2, 3]]))


def loss_of(sam: Sam) -> Tensor:
    """A scalar that depends on every pixel of the one mask that training uses."""
    logits = forward(sam, *batch()).logits
    return (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))).mean()


def trained(base: BaseSam, config: Any, steps: int = 2) -> tuple[Sam, list[str]]:
    """A SAM away from its starting point."""
    sam = copy.deepcopy(base.sam)
    names = inject(sam, config, seed=0)
    optimizer = torch.optim.Adam([p for p in sam.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(sam).backward()
        optimizer.step()
    return sam, names


def test_every_kind_is_checked() -> None:
    members = typing.get_args(typing.get_args(PeftConfig)[0])
    kinds = {member.model_fields["kind"].default for member in members}
    assert set(SETTINGS) == set(METHODS) == kinds


@pytest.mark.parametrize("config", ALL, ids=named)
class TestEveryKind:
    def test_declared_parameters_train_and_nothing_else(self, tiny_base: BaseSam, config: Any) -> None:
        sam = copy.deepcopy(tiny_base.sam)
        names = inject(sam, config, seed=0)
        assert names
        assert [name for name, parameter in sam.named_parameters() if parameter.requires_grad] == names
        assert sum(parameter.numel() for parameter in sam.parameters() if parameter.requires_grad) > 0
        assert not any(name.startswith("prompt_encoder.") for name in names)

    def test_gradients_reach_exactly_the_declared_parameters(self, tiny_base: BaseSam, config: Any) -> None:
        sam, names = trained(tiny_base, config)
        sam.zero_grad(set_to_none=True)
        loss_of(sam).backward()
        reached = {name for name, parameter in sam.named_parameters() if parameter.grad is not None}
        assert reached == set(names)
        silent = {name for name in names if not sam.get_parameter(name).grad.abs().sum() > 0}
        # A softmax does not see what is added to all its keys.
        assert {name for name in silent if not name.endswith("k_proj.bias")} == set()

    def test_training_moves_nothing_else(self, tiny_base: BaseSam, config: Any) -> None:
        sam, names = trained(tiny_base, config)
        before = tiny_base.sam.state_dict()
        after = {name.replace(".base_layer.", "."): tensor for name, tensor in sam.state_dict().items()}
        assert before.keys() <= after.keys()
        assert {name for name in before if not torch.equal(before[name], after[name])} <= set(names)

    def test_its_seed_decides_the_new_weights(self, tiny_base: BaseSam, config: Any) -> None:
        state = torch.get_rng_state()
        first, second, third = (copy.deepcopy(tiny_base.sam) for _ in range(3))
        names = inject(first, config, seed=1)
        assert names == inject(second, config, seed=1) == inject(third, config, seed=2)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(first.get_parameter(name), second.get_parameter(name)) for name in names)
        same = all(torch.equal(first.get_parameter(name), third.get_parameter(name)) for name in names)
        assert same == (config.kind == "decoder")

    def test_a_bundle_gives_the_same_masks_bit_for_bit(
        self, materials: Materials, tmp_path: Path, config: Any, configure: Any
    ) -> None:
        run: RunConfig = configure(peft=config.model_dump())
        student = build_student(materials.base, run)
        optimizer = make_optimizer(student, run.optim)
        with torch.no_grad():
            for number, tensor in enumerate(student.tensors().values()):
                noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
                tensor.add_(noise * 0.05)
        student.sam.eval()
        state = RunState().after_epoch({"val/dice": 0.5})
        checkpoint = save_epoch(tmp_path / "checkpoints", run, state, student, optimizer)
        bundle = read_bundle(export_bundle(checkpoint, materials, tmp_path / "bundle", card={}))
        with torch.no_grad():
            expected, found = (forward(sam, *batch()) for sam in (student.sam, restore(bundle, materials.base)))
            untouched = forward(materials.base.sam, *batch())
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.mask_token, expected.mask_token)
        assert not torch.equal(found.logits, untouched.logits)
        picture = materials.val_set.sample(0).image
        prompt = ImagePrompt(box=(4, 5, 50, 40))
        one, two = (Predictor(bundle.path, device="cpu").predict(picture, prompt) for _ in range(2))
        assert (one == two).all()


@pytest.mark.parametrize("config", IDENTITY_STARTS, ids=named)
def test_an_identity_start_leaves_sam_as_it_was(tiny_base: BaseSam, config: Any) -> None:
    sam = copy.deepcopy(tiny_base.sam)
    inject(sam, config, seed=0)
    with torch.no_grad():
        assert torch.equal(forward(sam, *batch()).logits, forward(tiny_base.sam, *batch()).logits)


def test_the_released_initialisation_does_not_start_there(tiny_base: BaseSam) -> None:
    sam = copy.deepcopy(tiny_base.sam)
    inject(sam, AdapterConfig(width=4, zero_init=False), seed=0)
    with torch.no_grad():
        assert not torch.equal(forward(sam, *batch()).logits, forward(tiny_base.sam, *batch()).logits)


@pytest.mark.parametrize("config", IN_THE_ENCODER, ids=named)
class TestFirstBlock:
    def test_blocks_below_it_stay_frozen(self, tiny_base: BaseSam, config: Any) -> None:
        names = inject(copy.deepcopy(tiny_base.sam), config, seed=0)
        blocks = {int(name.split(".")[2]) for name in names if name.startswith("image_encoder.blocks.")}
        assert blocks == set(range(config.first_block, 6))

    @pytest.mark.parametrize("first", [6, 100])
    def test_beyond_the_last_block_is_refused(self, tiny_base: BaseSam, config: Any, first: int) -> None:
        changed = config.model_copy(update={"first_block": first})
        sam = copy.deepcopy(tiny_base.sam)
        with pytest.raises(ConfigError, match=rf"peft\.first_block must be below 6, .* got {first}"):
            inject(sam, changed, seed=0)


class TestOpenParameters:
    def test_a_pattern_without_match_is_an_error(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam)
        with pytest.raises(ValueError, match=r"trainable pattern 'image_encodr\.\*' matches none of \d+ parameters"):
            open_parameters(sam, ["image_encodr.*"])

    def test_names_come_in_model_order_once_each(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam)
        names = open_parameters(sam, ["mask_decoder.*", *DECODER_PATTERNS])
        assert names == [name for name, _ in sam.named_parameters() if name.startswith("mask_decoder.")]
