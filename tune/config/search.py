"""How configurations are chosen and which trials are stopped early, and which pairs of the two make sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from infosam.config import Strict
from tune.space import with_numbers

Sampler = Literal["tpe", "random", "qmc", "gp", "nsga2"]
Scheduler = Literal["none", "asha", "median"]
Size = Literal["adapter_mb", "epoch_seconds"]

PAIRS: Mapping[Sampler, frozenset[Scheduler]] = {
    "tpe": frozenset({"none", "asha", "median"}),
    "random": frozenset({"none", "asha", "median"}),
    "qmc": frozenset({"none", "asha", "median"}),
    "gp": frozenset({"none"}),
    "nsga2": frozenset({"none"}),
}
"""Which schedulers go with which sampler. Those that learn from finished trials only would learn next to nothing."""

URL_VARIABLE = "INFOSAM_STUDY_URL"
"""Environment variable with the database of the study where the file gives none; it may hold a password."""

_PAUSING = (
    "it pauses trials and starts others from their checkpoints, which a warm slot does not do; "
    "use asha, which only stops trials"
)
NOT_OFFERED: Mapping[str, str] = {
    "pbt": f"population-based training is not offered: {_PAUSING}",
    "pb2": f"population-based training is not offered: {_PAUSING}",
    "hyperband": f"synchronous HyperBand is not offered: {_PAUSING}",
    "bohb": f"BOHB is not offered: {_PAUSING} with sampler tpe",
}


class SearchConfig(Strict):
    """How points of the space are chosen."""

    trials: int = Field(default=16, ge=1, le=100_000)
    """Number of configurations to try."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of the sampler; with one slot it makes the sweep repeatable, with more the finishing order matters too."""
    sampler: Sampler = "tpe"
    """tpe: learns from finished and early-stopped trials (Bergstra et al. 2011); random: independent draws; qmc: a
    Sobol sequence, which covers the space evenly; gp: a Gaussian process with expected improvement, for few costly
    trials; nsga2: evolution towards two objectives at once, see `against`. gp and nsga2 learn from finished trials
    only, so they need scheduler.kind=none and no plateau_epochs. Settings that only some trials have (`when`), and for
    qmc choices too, are drawn at random by qmc, gp and nsga2; tpe learns them."""
    force: bool = False
    """Allow gp and nsga2 together with early stopping all the same; stopped trials then teach them nothing."""
    startup_trials: int = Field(default=8, ge=1)
    """Random trials before tpe or gp starts to learn; the size of a generation of nsga2."""
    against: Size | None = None
    """Second objective of nsga2, to be small while validation Dice is large: adapter_mb, what is trained in the image
    encoder; epoch_seconds, mean time of an epoch. The champion is still chosen by validation Dice alone."""
    points: Annotated[list[dict[str, Any]], BeforeValidator(with_numbers)] = Field(default_factory=list)
    """Configurations to try first, each a mapping of searched paths to values; paths left out are sampled, all of
    them for an empty one."""
    storage: Literal["journal", "memory", "rdb"] = "journal"
    """Where Optuna keeps the study: a journal file in the sweep's folder, memory only, or the database at `url`. A
    sweep can be resumed with each of them."""
    url: str | None = None
    """Database of storage rdb as an SQLAlchemy URL without password, such as postgresql://me@host/studies; default:
    the environment variable INFOSAM_STUDY_URL, which may hold one."""

    @field_validator("url")
    @classmethod
    def _url_holds_no_secret(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).password:
            raise ValueError(
                f"must not hold a password, because sweep files are kept and shown; put the whole URL into the "
                f"environment variable {URL_VARIABLE} instead"
            )
        return url

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> SearchConfig:
        if (self.sampler == "nsga2") != (self.against is not None):
            raise ValueError(
                f"sampler=nsga2 and against belong together, got sampler={self.sampler} and against={self.against}: "
                "nsga2 weighs two objectives, the other samplers know one; set against to adapter_mb or epoch_seconds"
            )
        if self.url is not None and self.storage != "rdb":
            raise ValueError(f"url has no effect with storage={self.storage}; set storage to rdb or leave url out")
        return self


class SchedulerConfig(Strict):
    """Which trials are stopped early. A trial's learning rate always decays over all of run.train.epochs, so trials
    are compared at equal points of equal schedules, and a stopped one is the beginning of a full one."""

    kind: Scheduler = "asha"
    """asha: at each rung only the best share goes on (Li et al. 2020); median: a trial whose best score so far lies
    below the median of the others' running averages at the same epoch is stopped (Golovin et al. 2017); none: every
    trial runs all its epochs."""
    grace_epochs: int = Field(default=6, ge=1)
    """First rung: no trial is stopped before this many epochs; none at all where trials are not longer."""
    reduction: float = Field(default=4.0, gt=1, le=16)
    """asha: one in this many trials survives a rung; the next rung is this many times later."""
    min_trials: int = Field(default=3, ge=1)
    """median: trials that must have reached an epoch before another is measured by them."""
    plateau_epochs: int | None = Field(default=None, ge=1)
    """Stop a trial whose best score has not risen by `plateau_delta` for this many epochs; null: never."""
    plateau_delta: float = Field(default=0.001, ge=0, lt=1)
    """Least rise of validation Dice that counts as progress."""

    @field_validator("kind", mode="before")
    @classmethod
    def _is_offered(cls, kind: Any) -> Any:
        if isinstance(kind, str) and (why := NOT_OFFERED.get(kind.lower())):
            raise ValueError(f"{kind}: {why}")
        return kind


def pair_problem(search: SearchConfig, scheduler: SchedulerConfig) -> str | None:
    """Why this sampler should not run with this early stopping; None where it may, or must by `force`."""
    if search.force:
        return None
    stopping = [] if scheduler.kind in PAIRS[search.sampler] else [f"scheduler.kind={scheduler.kind}"]
    if "asha" not in PAIRS[search.sampler] and scheduler.plateau_epochs is not None:
        stopping.append(f"scheduler.plateau_epochs={scheduler.plateau_epochs}")
    if not stopping:
        return None
    return (
        f"search.sampler={search.sampler} with {' and '.join(stopping)}: it learns from finished trials only, so "
        "early-stopped ones would teach it nothing; set scheduler.kind=none and no plateau_epochs, or sampler tpe, "
        "or search.force=true"
    )
