"""Which adapters a process of the cluster holds, and how it comes by them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infosam.config import ModelConfig, RunConfig, validate
from infosam.errors import UserError

if TYPE_CHECKING:
    from infosam.routing.pool import AdapterPool
    from tune.champions.following import ChampionFollower


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """The bundles named, or the champions of a registry, on one base."""

    model: ModelConfig = field(default_factory=ModelConfig)
    bundles: Mapping[str, Path] = field(default_factory=dict)  # by domain
    tracking_uri: str | None = None  # of the registry; None: do not look there
    home: Path | None = None  # results folder, which keeps what is fetched from the registry
    device: str = "auto"
    memory_mib: int | None = None

    def pool(self, *, every_s: float = 10.0) -> tuple[AdapterPool, ChampionFollower | None]:
        """A pool that holds them, and who follows the registry, after one look and not started.

        Raises WeightsError, BundleError or BundleMismatch; champions that cannot be used are left out."""
        from infosam.routing.pool import AdapterPool

        pool = AdapterPool(self.model, device=self.device, memory_mib=self.memory_mib)
        for domain, bundle in self.bundles.items():
            pool.add(domain, bundle)
        if self.tracking_uri is None:
            return pool, None
        if self.home is not None:
            os.environ["INFOSAM_HOME"] = str(self.home)
        from tune.champions.following import ChampionFollower

        follower = ChampionFollower(pool, uri=self.tracking_uri, every_s=every_s)
        follower.look()
        return pool, follower


def find_adapters(
    bundles: Mapping[str, Path], *, checkpoint: Path | None, device: str, memory_mib: int | None = None
) -> Adapters:
    """Those bundles, or without any the champions of the results folder, on the base that most of them have.

    Raises RegistryUnreachable, or BundleError for a folder that is none."""
    from tune.home import find_home

    home = find_home()
    uri = None if bundles else home.tracking_uri
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
