"""A sweep as a file: what is searched, how, on what, and where it is recorded. Every key is checked before Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from infosam.config import RunConfig, Strict, apply_overrides, read_yaml, validate
from infosam.errors import ConfigError
from tune.space import (
    Choice,
    Distribution,
    IntUniform,
    LogUniform,
    parse_distribution,
    point_problems,
    space_problems,
    with_numbers,
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


class SearchConfig(Strict):
    """How points of the space are chosen."""

    trials: int = Field(default=16, ge=1, le=100_000)
    """Number of configurations to try."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of the sampler; with one slot it makes the sweep repeatable, with more the finishing order matters too."""
    sampler: Literal["tpe", "random"] = "tpe"
    """tpe: learns from finished and early-stopped trials (Bergstra et al. 2011); random: independent draws."""
    startup_trials: int = Field(default=8, ge=1)
    """Random trials before tpe starts to learn."""
    points: Annotated[list[dict[str, Any]], BeforeValidator(with_numbers)] = Field(default_factory=list)
    """Configurations to try first, each a mapping of searched paths to values; paths left out are sampled."""
    storage: Literal["journal", "memory"] = "journal"
    """Where Optuna keeps the study: a journal file in the sweep's folder, or memory only."""


class SchedulerConfig(Strict):
    """Which trials are stopped early."""

    kind: Literal["asha", "none"] = "asha"
    """asha: at each rung only the best share goes on (Li et al. 2020); none: every trial runs all its epochs."""
    grace_epochs: int = Field(default=2, ge=1)
    """First rung: no trial is stopped before this many epochs."""
    reduction: float = Field(default=2.0, gt=1, le=16)
    """One in this many trials survives a rung; the next rung is this many times later."""


class ResourceConfig(Strict):
    """What one trial may use, and how many run at once."""

    slots: int | Literal["auto"] = "auto"
    """Trials at a time; auto: as many as the cluster holds now, at most the number of trials."""
    workers_per_trial: int = Field(default=1, ge=1)
    """Training processes of one trial; only 1 in this version."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """Processor cores reserved for a worker; whole cores are also its number of torch threads."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs reserved for a worker; a fraction lets several trials share one, 0 trains on the processor."""
    memory_gib_per_worker: float = Field(default=0, ge=0)
    """Main memory reserved for a worker in GiB; 0: not reserved."""
    step_timeout_s: float = Field(default=3600, gt=0)
    """Longest wait for one epoch, including start-up, before a slot is taken for broken."""
    max_failures: int = Field(default=2, ge=0)
    """How often a trial is started again after its process or node died; a trial that raises is not repeated."""

    @field_validator("workers_per_trial")
    @classmethod
    def _single_worker(cls, workers: int) -> int:
        if workers != 1:
            raise ValueError(
                f"must be 1 in this version, got {workers}: training does not yet synchronise gradients "
                "between processes, so more workers would train separate models; raise slots instead"
            )
        return workers

    @field_validator("slots")
    @classmethod
    def _positive(cls, slots: int | str) -> int | str:
        if isinstance(slots, int) and slots < 1:
            raise ValueError(f"must be >= 1 or auto, got {slots}")
        return slots

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one worker by their Ray names."""
        wanted = {
            "CPU": self.cpus_per_worker,
            "GPU": self.gpus_per_worker,
            "memory": float(int(self.memory_gib_per_worker * 2**30)),
        }
        return {name: amount for name, amount in wanted.items() if amount > 0}


class TrackingConfig(Strict):
    """Where MLflow records the sweep."""

    uri: str | None = None
    """Tracking server or database; default: MLFLOW_TRACKING_URI, or the embedded store in the results folder."""
    experiment: str = Field(default="infosam", min_length=1)
    """Experiment that holds the parent run and its trials."""


class SweepConfig(Strict):
    """One sweep over one domain."""

    name: Name | None = None
    """Names the sweep's folder, study and parent run; default: the domain. A taken name gets a number."""
    domain: Name | None = None
    """What the images show; the champion becomes the model infosam-<domain>. Default: the domain of the dataset."""
    data: Path
    """Folder made by `infosam data import`."""
    run: RunConfig = RunConfig()
    """Settings of every trial that are not searched."""
    space: Annotated[dict[str, Distribution], BeforeValidator(_parse_space)] = Field(default_factory=default_space)
    """Searched settings: dotted path below `run` -> choice, uniform, log_uniform or int_uniform, with optional when."""
    search: SearchConfig = SearchConfig()
    """How configurations are chosen."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """How trials are stopped early."""
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
    def _grace_fits(self) -> SweepConfig:
        if self.scheduler.kind == "asha" and self.scheduler.grace_epochs > self.run.train.epochs:
            raise ValueError(
                f"scheduler.grace_epochs must be <= run.train.epochs ({self.run.train.epochs}), got "
                f"{self.scheduler.grace_epochs}: no trial would ever reach a rung"
            )
        return self


def load_sweep_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The sweep in a YAML file, with `a.b=c` overrides. Raises ConfigError with every problem."""
    return parse_sweep_config(read_yaml(path), overrides, source=str(path))


def parse_sweep_config(settings: Mapping[str, Any], overrides: Sequence[str], *, source: str) -> SweepConfig:
    """As `load_sweep_config`, from a mapping; `source` names it in messages.

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
    return validate(SweepConfig, result, source)
