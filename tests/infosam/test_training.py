"""One run: the same for a seed, the same when resumed, and without a trace on what it shares with others."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import infosam.training
from infosam.config import ModelConfig, RunConfig, TrainConfig
from infosam.errors import ConfigError, DataError, Diverged
from infosam.frozen import FrozenEncodings
from infosam.objective import Objective
from infosam.run_state import RunState, checkpoints
from infosam.student import build_student
from infosam.training import (
    EpochReport,
    Materials,
    best_checkpoint,
    load_materials,
    steps_per_epoch,
    train,
    uses_bf16,
)

Configure = Callable[..., RunConfig]


def numbers(report: EpochReport) -> dict[str, float]:
    """All values but the time it took."""
    return {name: value for name, value in report.values.items() if name != "cost/seconds"}


def tensors(folder: Path | None) -> dict[str, Tensor]:
    """Everything a checkpoint holds of a run, student and optimiser."""
    assert folder is not None
    found = {f"student/{name}": tensor for name, tensor in load_file(folder / "student.safetensors").items()}
    return found | {f"moment/{name}": tensor for name, tensor in load_file(folder / "optimizer.safetensors").items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def whole(materials: Materials, configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three epochs without interruption: reports, and the tensors of every epoch as it ended."""
    folder = tmp_path_factory.mktemp("whole")
    reports, saved = [], []
    for report in train(configure(train={"epochs": 3}), materials, checkpoint_dir=folder):
        reports.append(report)
        saved.append(tensors(report.checkpoint))
    return reports, saved, folder


class TestReports:
    def test_an_epoch_tells_all_it_promises(self, whole: Any) -> None:
        reports = whole[0]
        assert [report.epoch for report in reports] == [1, 2, 3]
        for report in reports:
            assert report.values.keys() == {
                *(f"val/{prompt}{name}" for prompt in ("", "box/", "none/") for name in ("dice", "iou")),
                *(f"loss/{term}" for term in ("total", "structure", "compression", "distillation")),
                *(f"info/{name}" for name in ("entropy_teacher", "entropy_student", "mutual_information")),
                *(f"grad/{group}" for group in ("encoder", "decoder", "relation")),
                "lr",
                "cost/seconds",
            }  # fmt: skip
            assert all(math.isfinite(value) for value in report.values.values())
            assert report.values["cost/seconds"] > 0

    def test_the_total_is_the_weighted_sum(self, whole: Any, configure: Configure) -> None:
        info = configure().info
        for report in whole[0]:
            parts = {name: report.values[f"loss/{name}"] for name in ("structure", "compression", "distillation")}
            expected = (
                parts["structure"] + info.compression * parts["compression"] + info.distillation * parts["distillation"]
            )
            assert report.values["loss/total"] == pytest.approx(expected, rel=1e-5)

    def test_the_chosen_prompt_selects(self, materials: Materials, configure: Configure) -> None:
        for select in ("box", "none"):
            (report,) = train(configure(train={"epochs": 1, "select": select}), materials)
            assert report.values["val/dice"] == report.values[f"val/{select}/dice"]
            assert report.values["val/iou"] == report.values[f"val/{select}/iou"]

    def test_best_means_the_first_with_the_highest_dice(self, whole: Any) -> None:
        best = -1.0
        for report in whole[0]:
            assert report.is_best == (report.values["val/dice"] > best)
            best = max(best, report.values["val/dice"])

    def test_without_a_folder_nothing_is_kept(self, materials: Materials, configure: Configure) -> None:
        (report,) = train(configure(train={"epochs": 1}), materials)
        assert report.checkpoint is None

    def test_it_learns(self, materials: Materials, configure: Configure) -> None:
        """Always asked the same, it fits its few images better and better."""
        prompts = {"box": 1.0, "point": 0.0, "none": 0.0, "box_jitter": 0.0}
        config = configure(train={"epochs": 5, "batch_size": 7}, optim={"lr": 1e-3}, prompts=prompts)
        losses = [report.values["loss/structure"] for report in train(config, materials)]
        assert losses[-1] < 0.98 * losses[0]


class TestDeterminism:
    def test_a_seed_decides_everything(
        self, whole: Any, materials: Materials, configure: Configure, tmp_path: Path
    ) -> None:
        """The second run also finds the first one's teacher embeddings, in other batches than its own."""
        again = list(train(configure(train={"epochs": 3}), materials, checkpoint_dir=tmp_path))
        assert [numbers(report) for report in again] == [numbers(report) for report in whole[0]]
        assert_same(tensors(again[-1].checkpoint), whole[1][-1])

    def test_another_seed_gives_another_run(self, whole: Any, materials: Materials, configure: Configure) -> None:
        first = next(train(configure(train={"epochs": 3, "seed": 1}), materials))
        assert first.values["loss/total"] != whole[0][0].values["loss/total"]

    def test_materials_made_anew_give_the_same_run(
        self, whole: Any, tiny_model: ModelConfig, spores: Path, materials: Materials, configure: Configure
    ) -> None:
        other = configure(train={"epochs": 2, "seed": 5, "batch_size": 3}, peft={"kind": "adapter", "width": 2})
        list(train(other, materials))  # whatever ran before
        fresh = load_materials(tiny_model, spores, device="cpu", baselines=False)
        config = configure(train={"epochs": 3})
        assert [numbers(r) for r in train(config, fresh)] == [numbers(r) for r in train(config, materials)]


class TestResume:
    @pytest.mark.parametrize("stop", [1, 2])
    def test_after_any_epoch_it_goes_on_bit_for_bit(
        self, whole: Any, materials: Materials, configure: Configure, tmp_path: Path, stop: int
    ) -> None:
        config = configure(train={"epochs": 3})
        run = train(config, materials, checkpoint_dir=tmp_path)
        begun = [next(run) for _ in range(stop)]
        run.close()
        again, *rest = train(config, materials, checkpoint_dir=tmp_path)
        assert again == begun[-1]
        assert [report.epoch for report in rest] == list(range(stop + 1, 4))
        assert [numbers(report) for report in [*begun, *rest]] == [numbers(report) for report in whole[0]]
        assert [report.is_best for report in [*begun, *rest]] == [report.is_best for report in whole[0]]
        assert_same(tensors(rest[-1].checkpoint), whole[1][-1])

    def test_an_optimiser_with_weight_decay_and_idle_parameters_too(
        self, materials: Materials, configure: Configure, tmp_path: Path
    ) -> None:
        """Plain PEFT leaves the relation module without gradients, and so without moments."""
        config = configure(info={"compression": 0, "distillation": 0}, optim={"weight_decay": 0.01})
        *_, expected = train(config, materials, checkpoint_dir=tmp_path / "whole")
        next(train(config, materials, checkpoint_dir=tmp_path / "parts"))
        _, found = train(config, materials, checkpoint_dir=tmp_path / "parts")
        assert numbers(found) == numbers(expected)
        assert_same(tensors(found.checkpoint), tensors(expected.checkpoint))

    def test_a_finished_run_is_finished(self, whole: Any, materials: Materials, configure: Configure) -> None:
        assert list(train(configure(train={"epochs": 3}), materials, checkpoint_dir=whole[2])) == [whole[0][-1]]

    def test_a_torn_checkpoint_is_ignored(
        self, whole: Any, materials: Materials, configure: Configure, tmp_path: Path
    ) -> None:
        config = configure(train={"epochs": 3})
        next(train(config, materials, checkpoint_dir=tmp_path))
        torn = tmp_path / "epoch-0002.part"
        torn.mkdir()
        (torn / "student.safetensors").write_bytes(b"half of it")
        run = train(config, materials, checkpoint_dir=tmp_path)
        assert next(run).epoch == 1
        second = next(run)
        assert numbers(second) == numbers(whole[0][1])
        assert not torn.exists()

    def test_another_configuration_is_refused(self, whole: Any, materials: Materials, configure: Configure) -> None:
        config = configure(train={"epochs": 3}, optim={"lr": 1e-4})
        with pytest.raises(ConfigError, match="holds checkpoints of another configuration"):
            next(train(config, materials, checkpoint_dir=whole[2]))


class TestCheckpoints:
    def test_only_the_last_and_the_best_are_kept(self, whole: Any) -> None:
        reports, _, folder = whole
        best = max(report.epoch for report in reports if report.is_best)
        assert set(checkpoints(folder)) == {best, 3}
        assert sorted(path.name for path in folder.iterdir()) == sorted({f"epoch-000{best}", "epoch-0003"})
        assert best_checkpoint(folder) == folder / f"epoch-000{best}"

    def test_the_best_survives_worse_epochs(
        self, materials: Materials, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dice = iter([0.2, 0.5, 0.4, 0.5, 0.3])
        keys = [f"val/{prompt}/{name}" for prompt in ("box", "none") for name in ("dice", "iou")]
        monkeypatch.setattr(infosam.training, "mean_scores", lambda *_: dict.fromkeys(keys, next(dice)))
        kept = []
        for report in train(configure(train={"epochs": 5}), materials, checkpoint_dir=tmp_path):
            assert report.checkpoint is not None
            assert report.checkpoint.is_dir()
            kept.append(sorted(checkpoints(tmp_path)))
        assert kept == [[1], [2], [2, 3], [2, 4], [2, 5]]
        assert best_checkpoint(tmp_path) == tmp_path / "epoch-0002"

    def test_it_holds_the_history(self, whole: Any) -> None:
        state = json.loads((whole[2] / "epoch-0003" / "state.json").read_text(encoding="utf-8"))
        assert state["history"] == [report.values for report in whole[0]]
        assert state["values"] == whole[0][-1].values

    def test_there_is_none_before_the_first_epoch(self, tmp_path: Path) -> None:
        assert best_checkpoint(tmp_path / "nothing") is None
        assert best_checkpoint(tmp_path) is None

    def test_ties_keep_the_earlier_epoch(self) -> None:
        state = RunState().after_epoch({"val/dice": 0.0}).after_epoch({"val/dice": 0.0})
        assert (state.epoch, state.best_epoch, state.best_dice) == (2, 1, 0.0)


class TestIsolation:
    def test_a_run_leaves_materials_and_global_chance_alone(self, materials: Materials, configure: Configure) -> None:
        weights = copy.deepcopy(materials.base.sam.state_dict())
        flags = [parameter.requires_grad for parameter in materials.base.sam.parameters()]
        zero_shot, trivial, state = dict(materials.zero_shot), dict(materials.trivial), torch.get_rng_state()
        for peft in ({"kind": "lora"}, {"kind": "adapter", "width": 4}):
            list(train(configure(train={"epochs": 1}, peft=peft), materials))
        assert torch.equal(torch.get_rng_state(), state)
        after = materials.base.sam.state_dict()
        assert list(after) == list(weights)
        assert_same(after, weights)
        assert [parameter.requires_grad for parameter in materials.base.sam.parameters()] == flags
        assert not materials.base.sam.training
        assert (materials.zero_shot, materials.trivial) == (zero_shot, trivial)

    def test_global_chance_does_not_matter(self, whole: Any, materials: Materials, configure: Configure) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(12345)
            first = next(train(configure(train={"epochs": 3}), materials))
        assert numbers(first) == numbers(whole[0][0])


class TestPrecision:
    @pytest.mark.parametrize(
        ("able", "expected"),
        [({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"amx_bf16": False, "avx2": True}, False)],
    )
    def test_auto_asks_the_processor(
        self, monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: bool
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
        assert uses_bf16(TrainConfig(), torch.device("cpu")) is expected
        assert uses_bf16(TrainConfig(), torch.device("cuda"))

    def test_what_is_asked_for_counts(self) -> None:
        assert uses_bf16(TrainConfig(precision="bf16"), torch.device("cpu"))
        assert not uses_bf16(TrainConfig(precision="float32"), torch.device("cuda"))


class TestFrozenPrefix:
    @pytest.mark.parametrize("kind", ["lora", "decoder"])
    def test_it_changes_nothing_but_rounding(self, materials: Materials, configure: Configure, kind: str) -> None:
        peft = {"kind": kind, "first_block": 3} if kind == "lora" else {"kind": kind}
        runs = []
        for cache in ({"dtype": "float32", "prefix": True}, {"dtype": "float32", "prefix": False}):
            runs.append(list(train(configure(train={"epochs": 1}, peft=peft, cache=cache), materials))[-1].values)
        known, computed = runs
        for name in ("loss/total", "val/dice"):
            assert known[name] == pytest.approx(computed[name], rel=1e-4), name

    @pytest.mark.parametrize(("augment", "variants"), [({"flip": 0.5}, 4), ({"flip": 0.5, "colour": 0.1}, None)])
    def test_augmented_images_are_kept_only_where_they_can_be_numbered(
        self,
        augment: dict[str, float],
        variants: int | None,
        materials: Materials,
        configure: Configure,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        asked: list[int | None] = []
        original = FrozenEncodings.of

        def watched(self: FrozenEncodings, *arguments: Any, **options: Any) -> torch.Tensor:
            asked.append(options["variants"])
            return original(self, *arguments, **options)

        monkeypatch.setattr(FrozenEncodings, "of", watched)
        list(train(configure(train={"epochs": 1}, augment=augment), materials))
        assert set(asked) == {variants}


class TestPlainPeft:
    def test_without_information_terms_the_teacher_is_not_asked(
        self, materials: Materials, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("the teacher was asked")

        monkeypatch.setattr(FrozenEncodings, "of", refuse)
        monkeypatch.setattr(materials.base.sam.mask_decoder.transformer, "forward", refuse)
        config = configure(train={"epochs": 1, "batch_size": 1}, info={"compression": 0, "distillation": 0})
        student = build_student(materials.base, config)  # copies the refusal as well, so the student's is restored
        del student.sam.mask_decoder.transformer.forward
        monkeypatch.setattr(infosam.training, "build_student", lambda *_: student)
        (report,) = train(config, materials)
        assert {name for name in report.values if name.startswith("loss/")} == {"loss/total", "loss/structure"}
        assert report.values["loss/total"] == report.values["loss/structure"]

    @pytest.mark.parametrize(("compression", "distillation"), [(0, 1), (1, 0)])
    def test_one_term_may_be_off(
        self, materials: Materials, configure: Configure, compression: float, distillation: float
    ) -> None:
        info = {"compression": compression, "distillation": distillation}
        (report,) = train(configure(train={"epochs": 1}, info=info), materials)
        values = report.values
        expected = compression * values["loss/compression"] + distillation * values["loss/distillation"]
        assert values["loss/total"] - values["loss/structure"] == pytest.approx(expected, abs=1e-5)


class TestFailures:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite_ends_the_run(
        self, materials: Materials, configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: float
    ) -> None:
        original = infosam.training.build_student

        def poisoned(*arguments: Any) -> Any:
            student = original(*arguments)
            with torch.no_grad():
                student.sam.mask_decoder.iou_token.weight.fill_(value)
            return student

        monkeypatch.setattr(infosam.training, "build_student", poisoned)
        with pytest.raises(Diverged, match=r"the loss is nan in epoch 1, step 1 of 3, .*lower optim\.lr") as caught:
            list(train(configure(), materials, checkpoint_dir=tmp_path))
        assert "(now 0.0005)" in str(caught.value)
        assert checkpoints(tmp_path) == {}

    def test_gradients_that_are_not_finite_too(
        self, materials: Materials, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = infosam.training.objective

        def steep(*arguments: Any, **options: Any) -> Objective:
            result = original(*arguments, **options)
            logits = arguments[2].logits
            return result._replace(total=result.total + (logits - logits.detach()).sqrt().sum())  # a root at 0

        monkeypatch.setattr(infosam.training, "objective", steep)
        with pytest.raises(Diverged, match=r"the gradient's norm is (nan|inf) in epoch 1, step 1 of 3"):
            list(train(configure(), materials))

    def test_a_rate_far_too_high_is_told(self, materials: Materials, configure: Configure) -> None:
        """Not by a trick: weights that explode for real."""
        config = configure(optim={"lr": 1.0, "clip_norm": None, "warmup_fraction": 0.0})
        config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 1e20})})
        with pytest.raises(Diverged, match=r"optim\.lr"):
            list(train(config, materials))

    def test_fewer_images_than_one_batch(self, materials: Materials, configure: Configure) -> None:
        with pytest.raises(DataError, match=r"the train split has 7 images, fewer than train\.batch_size = 8"):
            next(train(configure(train={"batch_size": 8}), materials))

    def test_materials_of_another_model(self, materials: Materials, configure: Configure) -> None:
        with pytest.raises(ConfigError, match="vit_nano at 96 px is configured, but vit_nano at 64 px is loaded"):
            next(train(configure(model={"image_px": 96}), materials))

    def test_a_folder_without_data(self, tiny_model: ModelConfig, tmp_path: Path) -> None:
        with pytest.raises(DataError):
            load_materials(tiny_model, tmp_path)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there(self, tiny_model: ModelConfig, spores: Path) -> None:
        with pytest.raises(ConfigError, match="torch finds no GPU here"):
            load_materials(tiny_model, spores, device="cuda")


class TestEpochs:
    def test_an_epoch_is_full_batches(self, configure: Configure) -> None:
        assert steps_per_epoch(7, configure(train={"batch_size": 2})) == 3
        assert steps_per_epoch(8, configure(train={"batch_size": 2})) == 4
