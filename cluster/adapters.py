"""Which adapters a process of the cluster holds, and how it comes by them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infosam.config import ModelConfig, RunConfig, validate
from infosam.data.card import AUTO, PLAIN
from infosam.errors import UnknownDomain, UserError

if TYPE_CHECKING:
    from infosam.routing.pool import AdapterPool
    from tune.champions.following import ChampionFollower


NOTHING = "no domain has a champion yet: run `infosam sweep`, or name --bundle DOMAIN=DIR"


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A pool, who follows the registry for it, and a sentence for every adapter that is not in it."""

    pool: AdapterPool
    follower: ChampionFollower | None
    problems: Sequence[str]

    def require(self, domain: str = AUTO) -> None:
        """Raises UserError unless `domain` can be asked for: its adapter is here, or for `AUTO` one that can be chosen.

        Without this, plain SAM would stand in for adapters that were meant to be here."""
        if domain == PLAIN:
            return
        if domain == AUTO:
            if not self.pool.routable():
                raise UserError("\n  ".join(["no adapter here can be chosen automatically:", *self._reasons()]))
        elif domain not in self.pool.domains():
            raise UnknownDomain("\n  ".join([f"there is no adapter for {domain!r} here:", *self._reasons()]))

    def _reasons(self) -> list[str]:
        return list(self.problems) or [f"the pool has: {', '.join(self.pool.domains()) or 'none'}"]


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """The bundles named, or the champions of a registry, on one base."""

    model: ModelConfig = field(default_factory=ModelConfig)
    bundles: Mapping[str, Path] = field(default_factory=dict)  # by domain
    tracking_uri: str | None = None  # of the registry; None: do not look there
    home: Path | None = None  # results folder, which keeps what is fetched from the registry
    device: str = "auto"
    memory_mib: int | None = None

    def pool(self, *, every_s: float = 10.0) -> Filled:
        """A pool that holds them, and who follows the registry, after one look and not started.

        Champions that cannot be used are left out, and named in `problems`. Raises WeightsError, BundleError or
        BundleMismatch, or UserError for a registry that cannot be looked up or is not on this machine."""
        from infosam.routing.pool import AdapterPool

        pool = AdapterPool(self.model, device=self.device, memory_mib=self.memory_mib)
        for domain, bundle in self.bundles.items():
            pool.add(domain, bundle)
        if self.tracking_uri is None:
            return Filled(pool=pool, follower=None, problems=_by_name_only(pool))
        if self.home is not None:
            os.environ["INFOSAM_HOME"] = str(self.home)
        from tune.champions.following import ChampionFollower
        from tune.champions.registry import exists

        if not exists(self.tracking_uri):
            raise UserError(
                f"{socket.gethostname()}: the registry {self.tracking_uri} is not on this machine; use one that all "
                "machines reach (MLFLOW_TRACKING_URI, docs/tracking.md), or name --bundle DOMAIN=DIR"
            )
        follower = ChampionFollower(pool, uri=self.tracking_uri, every_s=every_s)
        follower.look()
        if follower.trouble is not None:
            raise UserError(f"the champions cannot be looked up: {follower.trouble}")
        return Filled(pool=pool, follower=follower, problems=[*_standing_out(follower), *_by_name_only(pool)])


def _standing_out(follower: ChampionFollower) -> list[str]:
    return [f"{name}: {one.problem}" for name, one in sorted(follower.standings.items()) if one.problem]


def _by_name_only(pool: AdapterPool) -> list[str]:
    names = sorted(set(pool.domains()) - set(pool.routable()))
    return [f"{name} is never chosen automatically: its bundle has no statistics of its images" for name in names]


def find_adapters(
    bundles: Mapping[str, Path],
    *,
    checkpoint: Path | None,
    device: str,
    memory_mib: int | None = None,
    plain: bool = False,
) -> Adapters:
    """Those bundles, or without any the champions of the results folder, on the base that most of them have.

    `plain`: only SAM without adapter is wanted, so there may be none. Raises RegistryUnreachable, BundleError for a
    folder that is none, or UserError where there is no adapter that could be used."""
    from tune.champions.lookup import champions
    from tune.home import find_home

    home = find_home()
    uri = None if bundles else home.tracking_uri
    if uri is not None and not champions(uri):
        if not plain:
            raise UnknownDomain(NOTHING)
        uri = None
    model = choose_model(models_of(bundles, uri), checkpoint)
    return Adapters(
        model=model, bundles=bundles, tracking_uri=uri, home=home.folder, device=device, memory_mib=memory_mib
    )


def choose_model(models: list[ModelConfig], checkpoint: Path | None) -> ModelConfig:
    """The base that most of the bundles were trained on; a pool holds one. Without bundles: vit_nano."""
    if not models:
        return ModelConfig()
    keys = Counter(model.model_copy(update={"checkpoint": None}).model_dump_json() for model in models)
    model = ModelConfig.model_validate_json(keys.most_common(1)[0][0])
    return model if checkpoint is None else model.model_copy(update={"checkpoint": checkpoint})


def models_of(bundles: Mapping[str, Path], tracking_uri: str | None) -> list[ModelConfig]:
    """The bases of bundles and of a registry's champions; champions that cannot be read are left out, for whoever uses
    them will say so. Raises RegistryUnreachable, or BundleError for a folder that is none."""
    from infosam.bundle import read_bundle

    found = [read_bundle(folder).config.model for folder in bundles.values()]
    if tracking_uri is None:
        return found
    from tune.champions.lookup import champions, read_card
    from tune.champions.registry import open_registry

    for version in champions(tracking_uri):
        with contextlib.suppress(UserError), open_registry(tracking_uri) as registry:
            card = read_card(registry, version)
            found.append(validate(RunConfig, card["config"], f"{version.name}: config").model)
    return found


def named_bundles(given: list[str]) -> dict[str, Path]:
    """Bundles by domain from DOMAIN=DIR. Raises UserError."""
    bundles: dict[str, Path] = {}
    for text in given:
        domain, separator, folder = text.partition("=")
        if not separator or not domain or not folder:
            raise UserError(f"--bundle {text!r}: expected DOMAIN=DIR, such as polyp=bundles/polyp")
        if domain in bundles:
            raise UserError(f"--bundle: {domain!r} is given twice")
        bundles[domain] = Path(folder).resolve()
    return bundles
