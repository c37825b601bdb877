"""Configuration of one training run: frozen pydantic models, YAML in, `a.b=c` overrides, errors that name the field.

A search (outside this package) varies the dotted paths of `RunConfig`, for example `peft.rank` or `info.distillation`.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from infosam.errors import ConfigError
from infosam.peft.config import AdapterConfig as AdapterConfig
from infosam.peft.config import ConvLoraConfig as ConvLoraConfig
from infosam.peft.config import DecoderOnlyConfig as DecoderOnlyConfig
from infosam.peft.config import LoraConfig as LoraConfig
from infosam.peft.config import PeftConfig as PeftConfig
from infosam.strict import Strict as Strict

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
AnyModel = TypeVar("AnyModel", bound=BaseModel)
Size = Literal["vit_nano", "vit_b", "vit_l", "vit_h"]
StoredType = Literal["float32", "float16", "bfloat16"]


class TeacherConfig(Strict):
    """A frozen SAM of another size than the student, for example vit_l teaching vit_b."""

    name: Size
    """Architecture of the teacher; its token grid and decoder width must be the student's."""
    checkpoint: Path | None = None
    """Official weights file; not needed for vit_nano."""


class ModelConfig(Strict):
    """Which SAM is adapted, and which one teaches it."""

    name: Size = "vit_nano"
    """Architecture of the student and, unless `teacher` says otherwise, of the frozen teacher."""
    checkpoint: Path | None = None
    """Official weights file; not needed for vit_nano, whose weights are part of the package."""
    image_px: int | None = Field(default=None, ge=32, le=2048)
    """Side of the square canvas an image is resized and padded to; default: the size of the architecture."""
    protocol: Literal["strict", "official"] = "strict"
    """How images are prepared for training and prediction, and scored on val: soundly, or as the released code does
    (infosam.protocols)."""
    teacher: TeacherConfig | None = None
    """The frozen teacher of the information and feature terms; default: the student's own starting point."""


class InfoConfig(Strict):
    """Weights of the two information terms of InfoSAM (ICML 2025, section 3; weights of the released code)."""

    compression: float = Field(default=1.0, ge=0, le=100)
    """lambda 1: weight of the relation compression loss, in 1 / bit; trains the relation module only."""
    distillation: float = Field(default=0.5, ge=0, le=100)
    """lambda 2: weight of the relation distillation loss, in 1 / bit; 0 together with compression 0 is plain PEFT."""

    features: float = Field(default=0.0, ge=0, le=1e4)
    """Weight of plain feature distillation, the mean squared error between student's and teacher's image embeddings;
    the baseline that the information terms must beat."""
    relation_from: Path | None = None
    """Bundle whose relation module this run starts from (InfoSAM, table on transfer); default: a fresh one."""
    relation_frozen: bool = False
    """Keep that relation module as it is: then compression has nothing to train and only distillation acts."""

    @property
    def relational(self) -> bool:
        """Whether one of the two information terms counts."""
        return self.compression > 0 or self.distillation > 0

    @property
    def active(self) -> bool:
        """Whether the frozen teacher is needed at all."""
        return self.relational or self.features > 0

    @model_validator(mode="after")
    def _only_a_trained_module_can_be_frozen(self) -> InfoConfig:
        if self.relation_frozen and self.relation_from is None:
            raise ValueError("relation_frozen needs relation_from: a fresh relation module that never learns is noise")
        return self


class LossConfig(Strict):
    """The supervised part of the objective."""

    structure: Literal["official", "weighted"] = "weighted"
    """`weighted`: BCE weighted near boundaries per image, as its authors meant it; `official`: as released, plain."""


class OptimConfig(Strict):
    """Adam(W) with warm-up and cosine decay per step."""

    name: Literal["adamw", "adam"] = "adamw"
    """`adamw` decouples weight decay from the gradient; `adam`, of the released code, adds it to the gradient."""
    lr: float = Field(default=5e-4, gt=0, le=1)
    """Peak learning rate of the adapters."""
    decoder_lr_ratio: float = Field(default=1.0, gt=0, le=100)
    """Peak learning rate of the mask decoder divided by `lr`."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """Weight decay of all trained parameters."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps over which the learning rate rises linearly from 0."""
    floor: float = Field(default=0.1, ge=0, le=1)
    """Last learning rate divided by the peak."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm over all trained parameters; null: no clipping."""


class PromptConfig(Strict):
    """What the model is told about where the object is, during training."""

    box: Fraction = 0.4
    """Share of training samples prompted with the box around the mask."""
    point: Fraction = 0.2
    """Share prompted with one point inside the mask."""
    points: Fraction = 0.0
    """Share of batches in which every sample is prompted with several points, inside and outside the mask."""
    none: Fraction = 0.4
    """Share prompted with nothing, that is with the valid frame of the image as box."""
    box_jitter: float = Field(default=0.05, ge=0, le=0.5)
    """Largest shift of each side of a training box, as a share of the box's size."""
    points_inside: int = Field(default=2, ge=1, le=32)
    """Of several points, how many lie in the mask; the released code tests Road with 2."""
    points_outside: int = Field(default=3, ge=0, le=32)
    """Of several points, how many lie in the background of the valid frame; the released code tests Road with 3."""

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> PromptConfig:
        shares = (self.box, self.point, self.points, self.none)
        if abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError(
                "the shares box + point + points + none must sum to 1, got "
                f"{' + '.join(str(share) for share in shares)} = {sum(shares):g}"
            )
        return self


FLIPS = 4
"""Ways to mirror an image along two axes, with not at all."""


class AugmentConfig(Strict):
    """Random changes of image and mask together; all off by default, as published."""

    flip: Fraction = 0.0
    """Probability of mirroring, along each axis on its own."""
    rotation_deg: float = Field(default=0.0, ge=0, le=180)
    """Largest rotation to either side, in degrees."""
    scale: float = Field(default=0.0, ge=0, le=1)
    """Largest zoom: the factor lies between 1 / (1 + scale) and 1 + scale."""
    colour: float = Field(default=0.0, ge=0, le=0.9)
    """Largest relative change of brightness, contrast and saturation."""

    @property
    def active(self) -> bool:
        """Whether any change can happen."""
        return any((self.flip, self.rotation_deg, self.scale, self.colour))

    @property
    def variants(self) -> int | None:
        """How many pictures one image can become; None where they are without number."""
        if any((self.rotation_deg, self.scale, self.colour)):
            return None
        return FLIPS if self.flip else 1


class TrainConfig(Strict):
    """Length, batch and chance of a run."""

    epochs: int = Field(default=10, ge=1, le=10_000)
    """Passes over the training split; the learning-rate schedule spans all of them."""
    batch_size: int = Field(default=4, ge=1, le=1024)
    """Images per step. The Gram matrices of the information terms are batch x batch: part of the objective."""
    masks_per_image: int = Field(default=1, ge=1, le=64)
    """Masks of one image that are prompted for and decoded together after encoding it once; where a data set has one
    row per mask. 1 takes every row on its own. An image with fewer masks repeats them under other prompts."""
    accumulate: int = Field(default=1, ge=1, le=1024)
    """Parts a batch is divided into, one after the other, to fit into memory. The Gram matrices stay those of the whole
    batch: with information terms the images go forward twice, about a third more time."""
    checkpointing: bool = False
    """Compute the blocks of the image encoder again on the way back instead of keeping what is inside them: much less
    memory, about a third more time, the same gradients."""
    compile: bool = False
    """Run the encoder's blocks through torch.compile in training. On a CPU a step of vit_nano takes a quarter less
    time, but compiling as long as some hundred steps, and every trial compiles anew, since another rank is another
    graph. For long runs; not measured on a GPU yet."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of the forward pass in training; auto is bfloat16 autocast on a GPU and on a CPU with instructions for its
    products (AMX, AVX-512 BF16), else float32. Losses, validation and prediction are float32 in any case."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seeds initialisation, sample order and prompts; equal seeds agree bit for bit on CPUs of one kind."""
    select: Literal["box", "none"] = "box"
    """Which prompt's validation Dice chooses the best epoch: truth box, or none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""


class CacheConfig(Strict):
    """What is kept of the work of frozen models. Part of a run, because rounding changes its numbers a little."""

    dtype: StoredType = "float16"
    """Type in which encodings of images are kept and used, whether they come from memory or disk."""
    prefix: bool = True
    """Keep what enters the first adapted block of the student's encoder, so that the blocks before it run once for an
    image; nothing to keep where the first block is adapted."""


class RunConfig(Strict):
    """Everything one training run depends on besides the data and the base weights."""

    model: ModelConfig = ModelConfig()
    peft: PeftConfig = LoraConfig()
    info: InfoConfig = InfoConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    prompts: PromptConfig = PromptConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    cache: CacheConfig = CacheConfig()

    @model_validator(mode="before")
    @classmethod
    def _peft_has_a_kind(cls, settings: Any) -> Any:
        """`peft.rank=8` alone says enough: settings without a kind are the default kind's."""
        peft = settings.get("peft") if isinstance(settings, Mapping) else None
        if not isinstance(peft, Mapping) or "kind" in peft:
            return settings
        return {**settings, "peft": {"kind": cls.model_fields["peft"].default.kind, **peft}}

    @model_validator(mode="after")
    def _batch_fits_the_objective(self) -> RunConfig:
        size, parts = self.train.batch_size, self.train.accumulate
        if size % parts:
            raise ValueError(f"train.accumulate must divide train.batch_size = {size}, got {parts}")
        if self.info.relational and size < 2:
            raise ValueError(
                f"train.batch_size must be >= 2 while info.compression or info.distillation is > 0, got "
                f"{size}: the Gram matrix is batch x batch, so with one image both terms are zero"
            )
        if isinstance(self.peft, ConvLoraConfig) and self.peft.balance > 0 and parts > 1:
            raise ValueError(
                f"train.accumulate must be 1 while peft.balance is > 0, got {parts}: the load is balanced over a whole "
                "batch, so smaller parts are another objective"
            )
        return self


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds (safe loader). Raises ConfigError for a missing, unparsable or non-mapping file."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a YAML configuration")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping of settings at the top level, found {type(loaded).__name__}")
    return loaded


def apply_overrides(settings: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `settings` with each `a.b=c` put in place; c is read as YAML, so numbers and lists keep their type."""
    result = _deep_copy(settings)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise ConfigError(f"override {override!r} is not of the form a.b=value")
        try:
            value = _number_if_exponent(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not valid YAML: {error}") from error
        set_path(result, path, value)
    return result


def set_path(settings: dict[str, Any], path: str, value: Any) -> None:
    """Puts `value` at the dotted `path` of nested mappings, creating levels. Raises ConfigError through a scalar."""
    *parents, last = path.split(".")
    level = settings
    for name in parents:
        level = level.setdefault(name, {})
        if not isinstance(level, dict):
            raise ConfigError(f"{path}: {name!r} is a single value, it has no setting below it")
    level[last] = value


def validate(model: type[AnyModel], settings: Mapping[str, Any], source: str) -> AnyModel:
    """`settings` as a checked `model`. Raises ConfigError with every problem: path, value, bound, "did you mean"."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise ConfigError(f"{source}: " + ("\n  ".join(["", *lines]) if len(lines) > 1 else lines[0])) from None


def load_run_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """A `RunConfig` from a YAML file (or the defaults) with overrides. Raises ConfigError."""
    settings = read_yaml(path) if path else {}
    return validate(RunConfig, apply_overrides(settings, overrides), str(path) if path else "configuration")


def _explain(model: type[BaseModel], problem: Any) -> str:
    where = [str(part) for part in problem["loc"]]
    own = 0 if problem["type"] == "value_error" else 1  # an unknown key may be called like a kind and still be a key
    parents = where[: len(where) - own]
    inner = [name for place, name in enumerate(parents) if not _is_tag(model, where[:place], name)]
    path = ".".join([*inner, *where[len(parents) :]])
    if problem["type"] == "extra_forbidden":
        known = sorted(known_keys(model, where[:-1]))
        close = difflib.get_close_matches(where[-1], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}" if known else ""
        return f"{path}: unknown setting{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if not path:
        return message
    if problem["type"] in ("value_error", "missing", "union_tag_not_found"):
        return f"{path}: {message}"
    return f"{path}: {message}, got {problem['input']!r}"


def known_keys(model: type[BaseModel], path: Sequence[str]) -> set[str]:
    """Field names at a dotted path below `model`, over all members of a union; empty where nothing is known."""
    return {field for candidate in _models_at(model, path) for field in candidate.model_fields}


def _models_at(model: type[BaseModel], path: Sequence[str]) -> list[type[BaseModel]]:
    """Models at a dotted path, in which the kind of a union's member may stand as a step of its own."""
    models = [model]
    for name in path:
        below: list[type[BaseModel]] = []
        for candidate in models:
            if name in candidate.model_fields:
                below += _models_in(candidate.model_fields[name].annotation)
            if name in _kinds_of(candidate):
                below.append(candidate)
        models = below
    return models


def _is_tag(model: type[BaseModel], parents: Sequence[str], name: str) -> bool:
    """Whether pydantic, not the user, put `name` into a path: the kind of a union's member."""
    return any(name in _kinds_of(candidate) for candidate in _models_at(model, parents))


def _kinds_of(model: type[BaseModel]) -> tuple[Any, ...]:
    kind = model.model_fields.get("kind")
    return typing.get_args(kind.annotation) if kind is not None else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [found for part in typing.get_args(annotation) for found in _models_in(part)]
    return []


def _number_if_exponent(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; a person means a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _deep_copy(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _deep_copy(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
