"""What is trained after the search."""

from __future__ import annotations

from pydantic import Field, model_validator

from infosam.config import Strict


class FinalConfig(Strict):
    """Repeats of the best configurations over seeds, and the winner's twin without information terms. Off by default:
    one configuration over one seed is the search's own trial."""

    top: int = Field(default=1, ge=1, le=100)
    """How many of the best configurations are trained over all seeds; they are then ranked by their mean."""
    seeds: int = Field(default=1, ge=1, le=100)
    """Seeds for each of them, the search's own included; 1: no repeats. 3 is the least that shows a spread."""
    twin: bool = False
    """Also train the winner with both information terms at 0 over the same seeds, to say what those terms gave."""

    @property
    def active(self) -> bool:
        """Whether there is anything to run."""
        return self.seeds > 1 or self.twin

    @property
    def trials(self) -> int:
        """How many runs that makes, where the search's own run is the first seed of each configuration."""
        return self.top * (self.seeds - 1) + self.seeds * self.twin

    @model_validator(mode="after")
    def _one_seed_ranks_nothing_anew(self) -> FinalConfig:
        if self.top > 1 and self.seeds == 1:
            raise ValueError(
                f"top = {self.top} needs seeds >= 2, got 1: the search has ranked them by one seed already"
            )
        return self
