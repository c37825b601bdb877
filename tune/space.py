"""The search space: which `RunConfig` settings vary, over what values, under which condition.

A space maps dotted paths of `RunConfig` to distributions. `sample` draws one point from an Optuna trial, `configured`
turns a point into the `RunConfig` of a trial, `space_problems` finds what could not be run, before any run.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from infosam.config import RunConfig, Strict, known_keys, set_path, validate
from infosam.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Point = Mapping[str, Any]

ZERO_SHARE = 1 / 8
"""Part of a logarithmic range with `or_zero` that stands for 0."""

FIXED = {
    "model": "all trials of a slot share one frozen base model",
    "train.epochs": "rungs and the learning-rate schedule are measured in it; set run.train.epochs",
    "train.select": "trials chosen by different prompts cannot be ranked; set run.train.select",
    "train.device": "it belongs to the machine, not to the method; set run.train.device",
}
"""Paths that must be equal in all trials of a sweep, and why."""


class _Distribution(Strict):
    when: dict[str, Any] = Field(default_factory=dict)
    """Only part of a trial in which these other searched paths have these values."""

    def corners(self) -> list[Any]:
        """The values that bound the range, or all values of a choice."""
        raise NotImplementedError

    def suggest(self, trial: BaseTrial, path: str) -> Any:
        """One value for `path`."""
        raise NotImplementedError

    def encode(self, value: Any) -> Any:
        """What Optuna must be given for `suggest` to return `value`."""
        return value

    def contains(self, value: Any) -> bool:
        """Whether `suggest` could return `value`."""
        raise NotImplementedError


class Choice(_Distribution):
    """One of several values; a value may be a group of settings."""

    choice: list[Any] = Field(min_length=1)
    """The values."""

    def corners(self) -> list[Any]:
        return list(self.choice)

    def suggest(self, trial: BaseTrial, path: str) -> Any:
        labels = [self.encode(value) for value in self.choice]
        return self.choice[labels.index(trial.suggest_categorical(path, labels))]

    def encode(self, value: Any) -> Any:
        return value if isinstance(value, bool | int | float | str | None) else json.dumps(value, sort_keys=True)

    def contains(self, value: Any) -> bool:
        return any(type(value) is type(one) and value == one for one in self.choice)


class _Range(_Distribution):
    def _bounds(self) -> tuple[float, float]:
        raise NotImplementedError

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        low, high = self._bounds()
        if low >= high:
            raise ValueError(f"the first bound must be below the second, got [{low:g}, {high:g}]")
        return self

    def contains(self, value: Any) -> bool:
        low, high = self._bounds()
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    def corners(self) -> list[Any]:
        return list(self._bounds())


class Uniform(_Range):
    """A real number, each equally likely."""

    uniform: tuple[float, float]
    """Lowest and highest value."""

    def _bounds(self) -> tuple[float, float]:
        return self.uniform

    def suggest(self, trial: BaseTrial, path: str) -> float:
        return trial.suggest_float(path, *self.uniform)


class LogUniform(_Range):
    """A positive real number, each order of magnitude equally likely."""

    log_uniform: tuple[float, float]
    """Lowest and highest value."""
    or_zero: bool = False
    """Also offer exactly 0: the range is continued below its low end, and what falls there means 0."""

    @model_validator(mode="after")
    def _is_positive(self) -> Self:
        if self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform needs bounds above 0, got {self.log_uniform[0]:g}; for 0 set or_zero: true")
        return self

    def _bounds(self) -> tuple[float, float]:
        return self.log_uniform

    def _floor(self) -> float:
        low, high = self.log_uniform
        return low * (low / high) ** (ZERO_SHARE / (1 - ZERO_SHARE)) if self.or_zero else low

    def corners(self) -> list[Any]:
        return [*([0.0] if self.or_zero else []), *self.log_uniform]

    def suggest(self, trial: BaseTrial, path: str) -> float:
        drawn = trial.suggest_float(path, self._floor(), self.log_uniform[1], log=True)
        return drawn if drawn >= self.log_uniform[0] else 0.0

    def encode(self, value: Any) -> Any:
        return self._floor() if value == 0 else value

    def contains(self, value: Any) -> bool:
        return super().contains(value) or (self.or_zero and value == 0 and not isinstance(value, bool))


class IntUniform(_Range):
    """A whole number."""

    int_uniform: tuple[int, int]
    """Lowest and highest value."""
    log: bool = False
    """Each order of magnitude equally likely, instead of each value."""
    step: int = Field(default=1, ge=1)
    """Distance between values, counted from the lowest; 1 when log."""

    @model_validator(mode="after")
    def _log_excludes_step(self) -> Self:
        if self.log and (self.step != 1 or self.int_uniform[0] < 1):
            raise ValueError(f"log: true needs step 1 and bounds >= 1, got step {self.step} from {self.int_uniform[0]}")
        return self

    def _bounds(self) -> tuple[float, float]:
        return self.int_uniform

    def corners(self) -> list[Any]:
        low, high = self.int_uniform
        return [low, low + (high - low) // self.step * self.step]

    def suggest(self, trial: BaseTrial, path: str) -> int:
        low, high = self.corners()
        return trial.suggest_int(path, low, high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        return super().contains(value) and isinstance(value, int) and (value - self.int_uniform[0]) % self.step == 0


Distribution = Choice | Uniform | LogUniform | IntUniform
Space = Mapping[str, Distribution]

KINDS: Mapping[str, type[Distribution]] = {
    "choice": Choice,
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "int_uniform": IntUniform,
}


def parse_distribution(path: str, settings: Any) -> Distribution:
    """The distribution a YAML mapping describes, recognised by its key. Raises ConfigError."""
    if isinstance(settings, Choice | Uniform | LogUniform | IntUniform):
        return settings
    kinds = [name for name in KINDS if isinstance(settings, Mapping) and name in settings]
    if len(kinds) != 1:
        close = (
            [near for key in settings for near in difflib.get_close_matches(str(key), KINDS, n=1)]
            if isinstance(settings, Mapping) and not kinds
            else []
        )
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{path}: give exactly one of {', '.join(KINDS)}, got {settings!r}{hint}")
    return validate(KINDS[kinds[0]], with_numbers(settings), path)


def with_numbers(settings: Any) -> Any:
    """`settings` with every text that spells a number as one: YAML 1.1 reads `1e-4` as text, a person does not."""
    if isinstance(settings, Mapping):
        return {key: with_numbers(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [with_numbers(value) for value in settings]
    if isinstance(settings, str):
        try:
            return float(settings)
        except ValueError:
            return settings
    return settings


def in_order(space: Space) -> list[str]:
    """The paths of `space`, each after those its condition reads. Raises ConfigError for a condition that cannot be."""
    ordered: list[str] = []
    waiting = list(space)
    while waiting:
        ready = [path for path in waiting if all(other in ordered for other in space[path].when)]
        if not ready:
            missing = {other for path in waiting for other in space[path].when if other not in space}
            why = f"{sorted(missing)} not searched" if missing else "they depend on each other"
            raise ConfigError(f"conditions of {', '.join(waiting)} can never be decided: {why}")
        ordered += ready
        waiting = [path for path in waiting if path not in ready]
    return ordered


def is_active(distribution: Distribution, point: Point) -> bool:
    """Whether the condition of a distribution holds at `point`."""
    return all(path in point and point[path] == value for path, value in distribution.when.items())


def sample(space: Space, trial: BaseTrial) -> dict[str, Any]:
    """One point of `space`: the value of every path whose condition holds."""
    point: dict[str, Any] = {}
    for path in in_order(space):
        if is_active(space[path], point):
            point[path] = space[path].suggest(trial, path)
    return point


def encode(space: Space, point: Point) -> dict[str, Any]:
    """`point` as the parameters Optuna must be told so that `sample` returns it."""
    return {path: space[path].encode(value) for path, value in point.items()}


def configured(run: RunConfig, point: Point) -> RunConfig:
    """`run` with the values of `point` put in. Raises ConfigError where they do not fit.

    Choosing another `kind` of a group keeps only those of the group's settings that the new kind knows."""
    settings = run.model_dump(mode="json")
    for path in sorted(point, key=lambda path: not path.endswith(".kind")):
        *parents, last = path.split(".")
        if last == "kind":
            group = settings
            for name in parents:
                group = group[name]
            known = known_keys(RunConfig, [*parents, str(point[path])])
            set_path(settings, ".".join(parents), {key: value for key, value in group.items() if key in known})
        value = point[path]
        if isinstance(value, Mapping):
            for key, part in value.items():
                set_path(settings, f"{path}.{key}", part)
        else:
            set_path(settings, path, value)
    return validate(RunConfig, settings, ", ".join(f"{path}={value}" for path, value in point.items()))


def space_problems(space: Space, run: RunConfig) -> list[str]:
    """What makes a space unusable: unknown or fixed paths, impossible conditions, values `RunConfig` refuses."""
    problems = [problem for path in space for problem in _path_problems(path)]
    problems += [problem for path, one in space.items() for problem in _condition_problems(path, one, space)]
    if problems:
        return problems
    refused: dict[str, None] = {}
    try:
        for point in corner_points(space):
            try:
                configured(run, point)
            except ConfigError as error:
                refused[str(error)] = None
    except ConfigError as error:
        return [str(error)]
    return list(refused)


def point_problems(point: Point, space: Space, run: RunConfig) -> list[str]:
    """What makes a point to try first unusable."""
    unknown = [f"{path}: not searched; searched are {', '.join(space)}" for path in point if path not in space]
    if unknown:
        return unknown
    idle = [
        f"{path}: not part of a trial with {space[path].when} unmet"
        for path in point
        if not is_active(space[path], point)
    ]
    outside = [
        f"{path}: {value!r} is outside {_describe(space[path])}"
        for path, value in point.items()
        if not space[path].contains(value)
    ]
    if idle or outside:
        return idle + outside
    try:
        configured(run, point)
    except ConfigError as error:
        return [str(error)]
    return []


def _path_problems(path: str) -> Iterator[str]:
    for fixed, why in FIXED.items():
        if path == fixed or path.startswith(f"{fixed}."):
            yield f"{path}: cannot be searched: {why}"
            return
    *parents, last = path.split(".")
    known = known_keys(RunConfig, parents)
    if last not in known:
        close = difflib.get_close_matches(last, known, n=1)
        hint = f"; did you mean {'.'.join([*parents, close[0]])!r}?" if close else ""
        yield f"{path}: no such setting of a run{hint}"


def _condition_problems(path: str, distribution: Distribution, space: Space) -> Iterator[str]:
    for other, value in distribution.when.items():
        parent = space.get(other)
        if not isinstance(parent, Choice):
            yield f"{path}: its condition reads {other}, which is not a searched choice"
        elif not parent.contains(value):
            yield f"{path}: its condition {other}={value!r} can never hold, {other} is one of {parent.choice}"


def corner_points(space: Space) -> Iterator[dict[str, Any]]:
    """For every outcome of the conditions, each path at each of its corners while the others stay at their first."""
    deciding = sorted({path for one in space.values() for path in one.when})
    ordered = in_order(space)
    for outcome in itertools.product(*(space[path].corners() for path in deciding)):
        decided = dict(zip(deciding, outcome, strict=True))
        base: dict[str, Any] = {}
        for path in ordered:
            if is_active(space[path], base):
                base[path] = decided.get(path, space[path].corners()[0])
        yield base
        for path in base:
            if path not in decided:
                yield from ({**base, path: corner} for corner in space[path].corners()[1:])


def _describe(distribution: Distribution) -> str:
    settings: Mapping[str, Any] = distribution.model_dump(exclude_defaults=True, exclude={"when"})
    return ", ".join(f"{name} {_plain(value)}" for name, value in settings.items())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
