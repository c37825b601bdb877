"""A sweep file over one domain or over several: one sweep for each, with everything but the images in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from infosam.config import Strict, read_yaml, validate
from infosam.errors import ConfigError
from tune.config.sweep import SweepConfig, overridden
from tune.remote_data import with_copies


class DomainsConfig(Strict):
    """What stands in place of `data` and `domain` in a file over several domains. Each domain has a sweep of its own,
    with its own trials, budget, leaderboard and champion; they share the slots, on which their trials take turns."""

    domains: list[Path] = Field(min_length=1)
    """Folders made by `infosam data import`, or their addresses (s3://, gs://), each of another domain. With `name: x`
    their sweeps are called x-<domain>, else <domain>."""


def load_sweep_configs(path: Path, overrides: Sequence[str] = ()) -> list[SweepConfig]:
    """The sweeps of a YAML file, one for each domain, with `a.b=c` overrides. Raises ConfigError with every problem."""
    return parse_sweep_configs(read_yaml(path), overrides, source=str(path))


def parse_sweep_configs(settings: Mapping[str, Any], overrides: Sequence[str], *, source: str) -> list[SweepConfig]:
    """As `load_sweep_configs`, from a mapping; `source` names it in messages. An override of `data` or `domains` takes
    the place of either in the mapping. Addresses of data sets are looked up, see `tune.remote_data`."""
    named = {text.partition("=")[0] for text in overrides} & {"data", "domains"}
    if len(named) == 1:
        settings = {key: value for key, value in settings.items() if key not in {"data", "domains"} - named}
    settings = with_copies(overridden(settings, overrides, source=source))
    if settings.get("domains") is None:
        return [validate(SweepConfig, {key: value for key, value in settings.items() if key != "domains"}, source)]
    folders = validate(DomainsConfig, {"domains": settings.pop("domains")}, source).domains
    for key, why in (("data", "each names the images"), ("domain", "the data set of each folder says its own")):
        if settings.get(key) is not None:
            raise ConfigError(f"{source}: {key} and domains are both given, but {why}; leave one of them out")
    return [validate(SweepConfig, settings | {"data": folder}, source) for folder in folders]


def sweep_file(configs: Sequence[SweepConfig]) -> dict[str, Any]:
    """The file that gives these sweeps, which differ in their images only."""
    settings: dict[str, Any] = configs[0].model_dump(mode="json")
    if len(configs) > 1:
        settings["domains"] = [str(config.data) for config in configs]
        del settings["data"], settings["domain"]
    return settings
