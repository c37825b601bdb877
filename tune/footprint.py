"""How large the adapter of a configuration is, counted from its settings, and whether that is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from infosam.config import ModelConfig, PeftConfig, RunConfig
from infosam.errors import ConfigError
from tune.config import ConstraintConfig, SweepConfig
from tune.space import Point, Space, configured, corner_points

BYTES_PER_PARAMETER = 4  # float32, as in a bundle
MB = 1e6


class Footprint:
    """Sizes of configurations and their bounds.

    Args:
        run: settings of every trial that are not searched.
        constraints: the bounds.
    """

    def __init__(self, run: RunConfig, constraints: ConstraintConfig) -> None:
        self._run = run
        self._bounds: Mapping[str, float] = constraints.model_dump(exclude_none=True)

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return bool(self._bounds)

    def sizes(self, point: Point) -> dict[str, float]:
        """What the configuration trains, in MB of float32: `adapter_mb`, `trained_mb`; see ConstraintConfig."""
        run = configured(self._run, point)
        encoder, decoder = _trained_mb(run.model, run.peft)
        return {"adapter_mb": encoder, "trained_mb": encoder + decoder}

    def excess(self, point: Point) -> dict[str, float]:
        """Size minus bound for each bound: above 0 where it is broken."""
        if not self.bounded:
            return {}
        sizes = self.sizes(point)
        return {name: sizes[name] - bound for name, bound in self._bounds.items()}

    def allows(self, point: Point) -> bool:
        """Whether no bound is broken."""
        return all(excess <= 0 for excess in self.excess(point).values())

    def describe(self, point: Point) -> str:
        """The bounds that are broken, with the sizes."""
        excess = self.excess(point)
        return ", ".join(
            f"{name} is {excess[name] + bound:.3g}, the bound is {bound:g}"
            for name, bound in self._bounds.items()
            if excess[name] > 0
        )


def check_constraints(config: SweepConfig) -> None:
    """Raises ConfigError if no configuration keeps the bounds, or one of `search.points` cannot."""
    footprint = Footprint(config.run, config.constraints)
    if not footprint.bounded:
        return
    problems = []
    if why := broken(footprint, {}, config.space):
        problems.append(f"no configuration of the space keeps them; of the smallest, {why}")
    for number, point in enumerate(config.search.points):
        if why := broken(footprint, point, config.space):
            problems.append(f"search.points[{number}] cannot keep them: {why}")
    if problems:
        raise ConfigError(f"constraints: {'; '.join(problems)}; raise the bound, or leave such configurations out")


def broken(footprint: Footprint, point: Point, space: Space) -> str | None:
    """The bounds that a point breaks even with the smallest values for what it leaves open; None if it need not."""
    if not footprint.bounded:
        return None
    completed = [{**corner, **point} for corner in corner_points(space) if _agree(corner, point, space)]
    if not completed or any(footprint.allows(one) for one in completed):
        return None
    return footprint.describe(min(completed, key=lambda one: sum(footprint.sizes(one).values())))


def _agree(corner: Point, point: Point, space: Space) -> bool:
    """Whether `corner` has all settings of `point`, and equal ones wherever other settings depend on them."""
    deciding = {path for one in space.values() for path in one.when}
    return point.keys() <= corner.keys() and all(corner[path] == point[path] for path in deciding & point.keys())


@cache
def _trained_mb(model: ModelConfig, peft: PeftConfig) -> tuple[float, float]:
    """Of the image encoder and of the mask decoder."""
    from infosam.peft.inject import count_trainable
    from infosam.sam.architectures import architecture

    counts = count_trainable(architecture(model.name, model.image_px), peft)
    encoder, decoder = (counts[part] * BYTES_PER_PARAMETER / MB for part in ("encoder", "decoder"))
    return encoder, decoder
