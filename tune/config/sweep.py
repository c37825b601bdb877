"""A sweep as a file: what is searched, how, on what, and where it is recorded. Every key is checked before Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from infosam.config import RunConfig, Strict, apply_overrides, read_yaml, validate
from infosam.errors import ConfigError
from tune.config.after import FinalConfig
from tune.config.limits import BudgetConfig, ConstraintConfig
from tune.config.resources import ResourceConfig
from tune.config.search import SchedulerConfig, SearchConfig, pair_problem
from tune.space import (
    Choice,
    Distribution,
    IntUniform,
    LogUniform,
    parse_distribution,
    point_problems,
    space_problems,
)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


def default_space() -> dict[str, Distribution]:
    """PEFT kind with its width, both information weights (0 included) and the learning rate."""
    return {
        "peft.kind": Choice(choice=["lora", "adapter"]),
        "peft.rank": IntUniform(int_uniform=(2, 16), log=True, when={"peft.kind": "lora"}),
        "peft.width": IntUniform(int_uniform=(8, 64), log=True, when={"peft.kind": "adapter"}),
        "info.compression": LogUniform(log_uniform=(0.03, 10.0), or_zero=True),
        "info.distillation": LogUniform(log_uniform=(0.03, 10.0), or_zero=True),
        "optim.lr": LogUniform(log_uniform=(5e-5, 2e-3)),
    }


def _parse_space(settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        return settings
    return {str(path): parse_distribution(str(path), one) for path, one in settings.items()}


class TrackingConfig(Strict):
    """Where MLflow records the sweep."""

    uri: str | None = None
    """Tracking server or database; default: MLFLOW_TRACKING_URI, or the embedded store in the results folder."""
    experiment: str = Field(default="infosam", min_length=1)
    """Experiment that holds the parent run and its trials."""


def _off(value: Any) -> Any:
    """YAML 1.1 reads `off` as false."""
    return "off" if value is False else value


class SweepConfig(Strict):
    """One sweep over one domain."""

    name: Name | None = None
    """Names the sweep's folder, study and parent run; default: the domain. A taken name gets a number."""
    domain: Name | None = None
    """What the images show; the champion becomes the model infosam-<domain>. Default: the domain of the dataset."""
    data: Path
    """Folder made by `infosam data import`, or its address (s3://, gs://), from which each machine copies it once into
    remote/ in the results folder; a file over several domains has `domains` instead, see below."""
    run: RunConfig = RunConfig()
    """Settings of every trial that are not searched."""
    space: Annotated[dict[str, Distribution], BeforeValidator(_parse_space)] = Field(default_factory=default_space)
    """Searched settings: dotted path below `run` -> choice, uniform, log_uniform or int_uniform, with optional when."""
    search: SearchConfig = SearchConfig()
    """How configurations are chosen."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """How trials are stopped early."""
    constraints: ConstraintConfig = ConstraintConfig()
    """How large an adapter may be."""
    budget: BudgetConfig = BudgetConfig()
    """When the sweep stops before all trials."""
    final: FinalConfig = FinalConfig()
    """What is trained after the search."""
    warm_start: Annotated[Literal["auto", "off"] | list[Name], BeforeValidator(_off)] = "off"
    """Earlier sweeps of other domains whose best configurations are tried after search.points, a sampled one before
    each, and then the paper's defaults: auto, the newest ones in the folder for sweeps; off; or a list of their names.
    All of it stands in search.points of the sweep's own sweep.yaml, where warm_start is off, so that running that file
    repeats the sweep."""
    resources: ResourceConfig = ResourceConfig()
    """What a trial may use."""
    tracking: TrackingConfig = TrackingConfig()
    """Where it is recorded."""
    storage: Path | None = None
    """Folder for sweeps, shared by all nodes; default: sweeps/ in the results folder."""

    @field_validator("space", mode="after")
    @classmethod
    def _space_can_be_run(cls, space: dict[str, Distribution], info: ValidationInfo) -> dict[str, Distribution]:
        if "run" in info.data and (problems := space_problems(space, info.data["run"])):
            raise ValueError("; ".join(problems))
        return space

    @field_validator("search", mode="after")
    @classmethod
    def _points_can_be_run(cls, search: SearchConfig, info: ValidationInfo) -> SearchConfig:
        if "run" not in info.data or "space" not in info.data:
            return search
        problems = [
            f"points[{number}]: {problem}"
            for number, point in enumerate(search.points)
            for problem in point_problems(point, info.data["space"], info.data["run"])
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return search

    @model_validator(mode="after")
    def _device_is_reserved(self) -> SweepConfig:
        if self.run.train.device == "cuda" and not self.resources.gpus_per_worker:
            raise ValueError(
                "run.train.device is cuda but resources.gpus_per_worker is 0, so Ray would hide the GPUs; "
                "set it to 1, or to a fraction to share a GPU between trials"
            )
        return self

    @model_validator(mode="after")
    def _workers_divide_batches(self) -> SweepConfig:
        train, workers = self.run.train, self.resources.workers_per_trial
        searched = self.space.keys() & {"train.batch_size", "train.accumulate"}  # then each trial checks for itself
        if not searched and train.batch_size % (workers * train.accumulate):
            raise ValueError(
                f"run.train.batch_size = {train.batch_size} must be a multiple of {workers * train.accumulate}, "
                f"resources.workers_per_trial times run.train.accumulate: the workers divide each batch among them"
            )
        return self

    @model_validator(mode="after")
    def _sampler_fits_scheduler(self) -> SweepConfig:
        if problem := pair_problem(self.search, self.scheduler):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _gpu_hours_can_be_spent(self) -> SweepConfig:
        if self.budget.gpu_hours is not None and not self.resources.gpus_per_worker:
            raise ValueError(
                f"budget.gpu_hours is {self.budget.gpu_hours:g} but resources.gpus_per_worker is 0, so none would "
                "ever be spent; set budget.hours, or reserve GPUs"
            )
        return self


def load_sweep_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The sweep in a YAML file, with `a.b=c` overrides. Raises ConfigError with every problem."""
    return parse_sweep_config(read_yaml(path), overrides, source=str(path))


def parse_sweep_config(settings: Mapping[str, Any], overrides: Sequence[str], *, source: str) -> SweepConfig:
    """As `load_sweep_config`, from a mapping; `source` names it in messages."""
    return validate(SweepConfig, overridden(settings, overrides, source=source), source)


def overridden(settings: Mapping[str, Any], overrides: Sequence[str], *, source: str) -> dict[str, Any]:
    """The settings with `a.b=c` overrides, not checked yet. Raises ConfigError for one that cannot be read.

    A path of the space contains dots itself, so `space.peft.rank={...}` is understood as the key `peft.rank` of
    space."""
    plain = [text for text in overrides if not text.startswith("space.")]
    result = apply_overrides(settings, plain)
    for text in overrides:
        if text.startswith("space."):
            path, _, value = text.removeprefix("space.").partition("=")
            space = result.setdefault("space", {path_: one.model_dump() for path_, one in default_space().items()})
            if not isinstance(space, dict):
                raise ConfigError(f"{source}: space must be a mapping, found {space!r}")
            space[path] = apply_overrides({}, [f"value={value}"])["value"]
    return result
