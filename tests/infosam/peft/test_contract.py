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
from infosam.config import PeftConfig, RunConfig
from infosam.data.prompts import Prompts
from infosam.errors import ConfigError
from infosam.peft.config import (
    AdapterConfig,
    AdaptFormerConfig,
    BitFitConfig,
    ConvLoraConfig,
    DecoderOnlyConfig,
    DoraConfig,
    FullConfig,
    Ia3Config,
    LohaConfig,
    LoraConfig,
    NormConfig,
    ParallelConfig,
    RsLoraConfig,
)
from infosam.peft.inject import DECODER_PATTERNS, METHODS, count_trainable, inject, merge, open_parameters
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt
from infosam.run_state import RunState, save_epoch
from infosam.sam.forward import forward
from infosam.sam.weights import BaseSam
from infosam.student import build_student
from infosam.training import Materials, make_optimizer

SETTINGS: dict[str, list[PeftConfig]] = {
    "lora": [
        LoraConfig(rank=2),
        LoraConfig(rank=3, alpha=6, first_block=2),
        LoraConfig(rank=2, targets=("qkv", "proj", "mlp"), first_block=4),
    ],
    "dora": [DoraConfig(rank=2), DoraConfig(rank=3, alpha=6, targets=("proj", "mlp"), first_block=3)],
    "rslora": [RsLoraConfig(rank=2), RsLoraConfig(rank=3, alpha=4, targets=("mlp",), first_block=3)],
    "loha": [LohaConfig(rank=2), LohaConfig(rank=3, alpha=6, targets=("qkv", "proj", "mlp"), first_block=4)],
    "ia3": [Ia3Config(), Ia3Config(targets=("qkv", "proj"), first_block=2)],
    "conv_lora": [ConvLoraConfig(rank=2, experts=3), ConvLoraConfig(rank=3, alpha=6, experts=2, first_block=2)],
    "adapter": [
        AdapterConfig(width=4),
        AdapterConfig(ratio=0.25, first_block=2, train_norms=False),
        AdapterConfig(width=4, zero_init=False),
    ],
    "parallel": [
        ParallelConfig(width=4),
        ParallelConfig(ratio=0.125, scale=2, first_block=2, train_norms=False),
        ParallelConfig(width=4, zero_init=False),
    ],
    "adaptformer": [
        AdaptFormerConfig(width=4),
        AdaptFormerConfig(ratio=0.125, scale=0.1, activation="relu", first_block=2, train_norms=False),
        AdaptFormerConfig(width=4, zero_init=False),
    ],
    "bitfit": [BitFitConfig(), BitFitConfig(first_block=2)],
    "norm": [NormConfig(), NormConfig(first_block=2)],
    "full": [FullConfig(), FullConfig(first_block=2)],
    "decoder": [DecoderOnlyConfig()],
}
ALL = [config for configs in SETTINGS.values() for config in configs]
IN_THE_ENCODER = [config for config in ALL if hasattr(config, "first_block")]
IDENTITY_STARTS = [config for config in ALL if getattr(config, "zero_init", True)]
OTHER_STARTS = [config for config in ALL if config not in IDENTITY_STARTS]
MERGED = [config for config in ALL if METHODS[config.kind].merge is not None]
NOT_MERGED = [config for config in ALL if METHODS[config.kind].merge is None]
DRAW_NOTHING = {"ia3", "bitfit", "norm", "full", "decoder"}


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


_TRAINED: dict[Any, tuple[Sam, list[str]]] = {}


def trained(base: BaseSam, config: Any) -> tuple[Sam, list[str]]:
    """A SAM two steps away from its starting point, and the names of what is trainable; a copy to change."""
    if config not in _TRAINED:
        sam = copy.deepcopy(base.sam)
        names = inject(sam, config, seed=0)
        optimizer = torch.optim.Adam([p for p in sam.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(sam).backward()
            optimizer.step()
        sam.zero_grad(set_to_none=True)
        _TRAINED[config] = sam, names
    return copy.deepcopy(_TRAINED[config])


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
        loss_of(sam).backward()
        reached = {name for name, parameter in sam.named_parameters() if parameter.grad is not None}
        assert reached == set(names)
        silent = {name for name in names if not sam.get_parameter(name).grad.abs().sum() > 0}
        # A softmax does not see what is added to all its keys, and an expert that nobody chose learns nothing.
        assert {name for name in silent if not name.endswith("k_proj.bias") and ".experts." not in name} == set()

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
        assert same == (config.kind in DRAW_NOTHING)

    def test_a_copy_is_the_same_function(self, tiny_base: BaseSam, config: Any) -> None:
        sam, names = trained(tiny_base, config)
        twin = copy.deepcopy(sam)
        assert [name for name, parameter in twin.named_parameters() if parameter.requires_grad] == names
        with torch.no_grad():
            assert torch.equal(forward(twin, *batch()).logits, forward(sam, *batch()).logits)
            sam.get_parameter(names[0]).add_(1.0)
            assert not torch.equal(forward(twin, *batch()).logits, forward(sam, *batch()).logits)

    def test_it_goes_to_the_device_of_sam(self, tiny_base: BaseSam, config: Any) -> None:
        sam = copy.deepcopy(tiny_base.sam).to("meta")
        inject(sam, config, seed=0)
        assert {parameter.device.type for parameter in sam.parameters()} == {"meta"}

    def test_the_count_needs_no_weights(self, tiny_base: BaseSam, config: Any) -> None:
        sam = copy.deepcopy(tiny_base.sam)
        names = inject(sam, config, seed=0)
        sizes = {name: sam.get_parameter(name).numel() for name in names}
        encoder = sum(size for name, size in sizes.items() if name.startswith("image_encoder."))
        counted = count_trainable(tiny_base.spec, config)
        assert counted == {"encoder": encoder, "decoder": sum(sizes.values()) - encoder}
        assert (encoder == 0) == (config.kind == "decoder")

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


@pytest.mark.parametrize("config", [configs[0] for configs in SETTINGS.values()], ids=named)
def test_under_bf16_autocast_it_is_nearly_the_same_and_still_learns(tiny_base: BaseSam, config: Any) -> None:
    sam, names = trained(tiny_base, config)
    with torch.no_grad():
        exact = forward(sam.train(), *batch()).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = forward(sam, *batch()).logits
    assert (logits.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
    logits.float().mean().backward()
    assert all(sam.get_parameter(name).grad.isfinite().all() for name in names)


@pytest.mark.parametrize("config", OTHER_STARTS, ids=named)
def test_the_released_initialisation_does_not_start_there(tiny_base: BaseSam, config: Any) -> None:
    sam = copy.deepcopy(tiny_base.sam)
    inject(sam, config, seed=0)
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


@pytest.mark.parametrize("config", MERGED, ids=named)
def test_a_merged_sam_is_plain_and_the_same_function(tiny_base: BaseSam, config: Any) -> None:
    sam, _ = trained(tiny_base, config)
    with torch.no_grad():
        adapted = forward(sam, *batch())
        merge(sam, config)
        merged = forward(sam, *batch())
        untouched = forward(tiny_base.sam, *batch())
    torch.testing.assert_close(merged.features, adapted.features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(merged.logits, adapted.logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(merged.logits, untouched.logits, atol=1e-2)
    assert list(sam.state_dict()) == list(tiny_base.sam.state_dict())
    assert [type(module) for module in sam.modules()] == [type(module) for module in tiny_base.sam.modules()]
    assert not any(module._forward_hooks for module in sam.modules())


@pytest.mark.parametrize("config", NOT_MERGED, ids=named)
def test_what_is_not_linear_refuses_to_merge(tiny_base: BaseSam, config: Any) -> None:
    sam, _ = trained(tiny_base, config)
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    with pytest.raises(ConfigError, match=rf"peft\.kind={config.kind} cannot be merged: .* kinds that can: lora, dora"):
        merge(sam, config)
    assert all(torch.equal(tensor, before[name]) for name, tensor in sam.state_dict().items())


class TestOpenParameters:
    def test_a_pattern_without_match_is_an_error(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam)
        with pytest.raises(ValueError, match=r"trainable pattern 'image_encodr\.\*' matches none of \d+ parameters"):
            open_parameters(sam, ["image_encodr.*"])

    def test_names_come_in_model_order_once_each(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam)
        names = open_parameters(sam, ["mask_decoder.*", *DECODER_PATTERNS])
        assert names == [name for name, _ in sam.named_parameters() if name.startswith("mask_decoder.")]
