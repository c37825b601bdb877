"""Settings: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from infosam.config import (
    AdapterConfig,
    DecoderOnlyConfig,
    LoraConfig,
    RunConfig,
    apply_overrides,
    known_keys,
    load_run_config,
    read_yaml,
    set_path,
    validate,
)
from infosam.errors import ConfigError


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_run_config(None, overrides)
    return str(caught.value)


class TestDefaults:
    def test_nothing_needs_to_be_said(self) -> None:
        assert load_run_config(None) == RunConfig()

    def test_a_dump_reads_back_as_itself(self) -> None:
        config = load_run_config(None, ["peft.kind=adapter", "peft.width=8", "model.image_px=64", "optim.lr=1e-4"])
        assert validate(RunConfig, config.model_dump(mode="json"), "dump") == config

    def test_it_is_immutable(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            RunConfig().train.epochs = 3


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("train.epochs=3", ("train", "epochs"), 3),
            ("optim.lr=1e-4", ("optim", "lr"), 1e-4),  # YAML 1.1 alone reads this as text
            ("optim.lr=0.5", ("optim", "lr"), 0.5),
            ("optim.clip_norm=null", ("optim", "clip_norm"), None),
            ("train.select=none", ("train", "select"), "none"),
            ("model.checkpoint=a=b.pth", ("model", "checkpoint"), "a=b.pth"),
            ("peft={kind: lora, rank: 3}", ("peft", "rank"), 3),
            ("list=[1, 2]", ("list",), [1, 2]),
            ("empty=", ("empty",), None),
        ],
    )
    def test_values_keep_their_type(self, override: str, path: tuple[str, ...], value: object) -> None:
        found: object = apply_overrides({}, [override])
        for name in path:
            assert isinstance(found, dict)
            found = found[name]
        assert found == value
        assert type(found) is type(value)

    def test_they_go_on_top_of_the_file_and_leave_it_alone(self) -> None:
        settings = {"train": {"epochs": 3, "seed": 1}}
        assert apply_overrides(settings, ["train.epochs=4"]) == {"train": {"epochs": 4, "seed": 1}}
        assert settings == {"train": {"epochs": 3, "seed": 1}}

    @pytest.mark.parametrize("override", ["train.epochs", "=3", ""])
    def test_another_form_is_refused(self, override: str) -> None:
        assert "is not of the form a.b=value" in refusal(override)

    def test_bad_yaml_is_refused(self) -> None:
        assert "override 'train.seed=[1': the value is not valid YAML" in refusal("train.seed=[1")

    def test_nothing_lies_below_a_single_value(self) -> None:
        with pytest.raises(ConfigError, match=r"train\.seed\.x: 'seed' is a single value"):
            set_path({"train": {"seed": 1}}, "train.seed.x", 2)


class TestKinds:
    def test_a_kind_brings_its_own_settings(self) -> None:
        assert load_run_config(None, ["peft.kind=adapter"]).peft == AdapterConfig()
        assert load_run_config(None, ["peft.kind=decoder"]).peft == DecoderOnlyConfig()

    def test_without_a_kind_it_is_the_default_one(self) -> None:
        assert load_run_config(None, ["peft.rank=8"]).peft == LoraConfig(rank=8)

    def test_an_unknown_kind_lists_the_known_ones(self) -> None:
        message = refusal("peft.kind=lorra")
        for kind in ("peft", "'lorra'", "'lora'", "'adapter'", "'decoder'"):
            assert kind in message

    def test_settings_of_another_kind_are_unknown(self) -> None:
        assert "peft.width: unknown setting" in refusal("peft.kind=lora", "peft.width=8")
        assert "known here: kind" in refusal("peft.kind=decoder", "peft.rank=8")


class TestRefusals:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("trian.epochs=3", "trian: unknown setting; did you mean 'train'?"),
            ("train.epoch=3", "train.epoch: unknown setting; did you mean 'epochs'?"),
            ("peft.rnk=3", "peft.rnk: unknown setting; did you mean 'rank'?"),
            ("optim.qqq=3", "optim.qqq: unknown setting; known here: clip_norm, decoder_lr_ratio,"),
        ],
    )
    def test_an_unknown_key_gets_a_hint(self, override: str, message: str) -> None:
        assert message in refusal(override)

    @pytest.mark.parametrize(
        ("override", "parts"),
        [
            ("peft.rank=0", ("peft.rank: ", "greater than or equal to 1", "got 0")),
            ("optim.lr=0", ("optim.lr: ", "greater than 0", "got 0")),
            ("optim.lr=.inf", ("optim.lr: ", "finite")),
            ("optim.lr=nan", ("optim.lr: ", "finite")),
            ("info.distillation=-0.1", ("info.distillation: ", "greater than or equal to 0", "got -0.1")),
            ("train.epochs=two", ("train.epochs: ", "integer", "got 'two'")),
            ("train.device=tpu", ("train.device: ", "'cpu'", "got 'tpu'")),
            ("model.name=vit_x", ("model.name: ", "'vit_nano'", "got 'vit_x'")),
            ("loss.structure=wieghted", ("loss.structure: ", "'weighted'")),
            ("peft=3", ("peft: ", "got 3")),
        ],
    )
    def test_a_bad_value_is_named_with_its_bound(self, override: str, parts: tuple[str, ...]) -> None:
        message = refusal(override)
        for part in parts:
            assert part in message

    def test_shares_of_prompts_sum_to_1(self) -> None:
        message = refusal("prompts.box=0.9")
        assert (
            "prompts: the shares box + point + points + none must sum to 1, got 0.9 + 0.2 + 0.0 + 0.4 = 1.5" in message
        )

    def test_information_needs_a_batch(self) -> None:
        message = refusal("train.batch_size=1")
        assert "train.batch_size must be >= 2 while info.compression or info.distillation is > 0, got 1" in message
        assert "configuration: configuration" not in message
        plain = load_run_config(None, ["train.batch_size=1", "info.compression=0", "info.distillation=0"])
        assert not plain.info.active

    def test_all_problems_are_told_at_once(self) -> None:
        message = refusal("peft.rank=0", "optim.lrr=1", "train.seed=-1")
        for part in ("peft.rank", "optim.lrr", "train.seed"):
            assert part in message


class TestFiles:
    def test_a_file_and_overrides(self, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text("peft: {kind: adapter, width: 8}\ntrain:\n  epochs: 3\n", encoding="utf-8")
        config = load_run_config(file, ["train.seed=4"])
        assert (config.peft, config.train.epochs, config.train.seed) == (AdapterConfig(width=8), 3, 4)

    def test_an_empty_file_is_the_defaults(self, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text("# nothing\n", encoding="utf-8")
        assert load_run_config(file) == RunConfig()

    def test_a_refusal_names_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text("train: {epochs: 0}", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"run\.yaml: train\.epochs: .* got 0"):
            load_run_config(file)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: [1", "not valid YAML"),
            (b"\xff\xfe\xff", "not valid YAML"),
            (b"- 1\n- 2\n", "expected a mapping of settings at the top level, found list"),
            (b"a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ],
    )
    def test_a_file_that_is_no_mapping(self, tmp_path: Path, content: bytes, message: str) -> None:
        file = tmp_path / "run.yaml"
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_yaml(file)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"run\.yaml: no such file"):
            read_yaml(tmp_path / "run.yaml")


def test_known_keys_looks_through_unions() -> None:
    assert known_keys(RunConfig, ["peft"]) >= {"kind", "rank", "width"}
    assert known_keys(RunConfig, ["peft", "adapter"]) == set(AdapterConfig.model_fields)
    assert known_keys(RunConfig, ["train", "epochs"]) == set()
