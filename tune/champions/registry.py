"""Versions and aliases of each domain's adapters in the MLflow registry.

The registered model `infosam-<domain>` has one version per adapter that was offered. Its alias `champion` is the one in
use, `previous` the one before, `challenger` the newest that did not make it. A domain that had a champion always has
one: the alias moves in one write, never through a gap, and only if it still stands where the mover saw it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from infosam.errors import UnknownDomain, UserError
from tune.champions.turn import TurnLost, turn
from tune.home import find_home
from tune.resources import environment
from tune.tracking import CLIENT_SETTINGS, new_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

Found = TypeVar("Found")

PREFIX = "infosam-"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
AUTO = "auto"
"""No domain: `infosam-auto` holds several champions at once (tune/champions/publishing.py)."""
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_UV_AUTO_DETECT": "false"}
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED")
"""How stores answer for a model, version or alias that is not there, or not for this user: a server with users says the
same in both cases."""


class RegistryUnreachable(UserError):
    """Nobody answers where the champions are kept, or not as a registry would."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One adapter of a domain as the registry has it."""

    domain: str
    number: str
    aliases: tuple[str, ...]
    source: str  # artifact location of the MLflow model
    run_id: str
    created_ms: int
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        """For sentences."""
        return f"{PREFIX}{self.domain} version {self.number}"


@contextlib.contextmanager
def open_registry(uri: str | None = None) -> Iterator[Registry]:
    """The registry at `uri`, by default the one of the results folder, for a person who waits: few retries.

    Raises RegistryUnreachable for whatever MLflow raises inside."""
    from mlflow.exceptions import MlflowException

    uri = uri or find_home().tracking_uri
    with environment(CLIENT_SETTINGS | QUIET):
        try:
            yield Registry(uri)
        except MlflowException as error:
            raise RegistryUnreachable(
                f"the model registry at {uri} (MLFLOW_TRACKING_URI) cannot be used: {error}"
            ) from error


@contextlib.contextmanager
def open_domain(domain: str) -> Iterator[Registry]:
    """As `open_registry`, for a domain that must be known. Raises UnknownDomain too."""
    if not exists(find_home().tracking_uri):
        raise UnknownDomain(f"domain {domain!r} is not registered, nor is any other yet: run `infosam sweep`")
    with open_registry() as registry:
        known = registry.domains()
        if domain not in known:
            raise UnknownDomain(f"domain {domain!r} is not registered; known domains: {', '.join(known) or 'none'}")
        yield registry


def exists(uri: str) -> bool:
    """Whether a local database is there: asking MLflow would make an empty one."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()


class Registry:
    """Plain calls on one registry; each may raise MlflowException."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client: MlflowClient = new_client(uri)

    def domains(self) -> list[str]:
        """Every domain of which any version is registered, sorted."""
        found, page = [], None
        while True:
            models = self.client.search_registered_models(f"name LIKE '{PREFIX}%'", page_token=page)
            found += [model.name.removeprefix(PREFIX) for model in models]
            page = models.token
            if not page:
                return sorted(set(found) - {AUTO})

    def versions(self, domain: str) -> list[Version]:
        """All versions of a domain, newest first; none for an unknown one."""
        aliases = self._aliases(domain)
        found, page = [], None
        while aliases is not None:
            versions = self.client.search_model_versions(f"name = '{PREFIX}{domain}'", page_token=page)
            found += [_version(one, aliases) for one in versions]
            page = versions.token
            if not page:
                break
        return sorted(found, key=lambda version: -int(version.number))

    def find(self, domain: str, which: str) -> Version | None:
        """A version by number or alias, None if there is none."""
        aliases = self._aliases(domain)
        number = (aliases or {}).get(which, which)
        if aliases is None or not re.fullmatch(r"[1-9]\d*", number):
            return None
        version = _absent(lambda: self.client.get_model_version(PREFIX + domain, number))
        return None if version is None else _version(version, aliases)

    def require(self, domain: str, which: str) -> Version:
        """As `find`. Raises UserError that says what there is."""
        version = self.find(domain, which)
        if version is None:
            numbers = ", ".join(one.number for one in self.versions(domain))
            there = f"it has the versions {numbers}" if numbers else f"known domains: {', '.join(self.domains())}"
            raise UserError(f"domain {domain!r} has no version or alias {which!r}; {there}")
        return version

    def with_source(self, domain: str, source: str) -> Version | None:
        """The version made of these artifacts, if there is one."""
        return next((version for version in self.versions(domain) if version.source == source), None)

    def register(self, domain: str, source: str, run_id: str, tags: Mapping[str, str], description: str) -> Version:
        """A new version without alias."""
        from mlflow.exceptions import MlflowException

        model = PREFIX + domain
        try:
            self.client.create_registered_model(
                model, tags={"domain": domain}, description=f"Adapters of InfoSAM for the domain {domain}"
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self.client.create_model_version(model, source, run_id=run_id, tags=dict(tags), description=description)
        return _version(made, {})

    def keep_as_challenger(self, version: Version) -> None:
        """Gives a version the alias `challenger`, unless a newer one has it."""
        with self.turn(version.domain):
            known = (self._aliases(version.domain) or {}).get(CHALLENGER, "0")
            if int(known) < int(version.number):
                self.client.set_registered_model_alias(PREFIX + version.domain, CHALLENGER, version.number)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Sets tags of a version."""
        for key, value in tags.items():
            self.client.set_model_version_tag(PREFIX + version.domain, version.number, key, value)

    def crown(self, version: Version, *, instead_of: Version | None) -> bool:
        """Makes a version champion if the champion still is `instead_of`; False if somebody changed that meanwhile.

        `previous` is set before `champion` moves, so that a crash between the two leaves a champion and the way back.
        Raises UserError if someone who does not wait for turns, such as MLflow's page, moved the alias at once."""
        model = PREFIX + version.domain
        with self.turn(version.domain) as confirm:
            aliases = self._aliases(version.domain) or {}
            if aliases.get(CHAMPION) != (instead_of.number if instead_of else None):
                return False
            if instead_of is not None:
                self.client.set_registered_model_alias(model, PREVIOUS, instead_of.number)
            confirm()
            self.client.set_registered_model_alias(model, CHAMPION, version.number)
            if aliases.get(CHALLENGER) == version.number:
                self.client.delete_registered_model_alias(model, CHALLENGER)
            now = (self._aliases(version.domain) or {}).get(CHAMPION)
        if now != version.number:
            raise UserError(
                f"{version.name} was made champion, but someone else moved the alias to version {now} at the same "
                f"moment; look at `infosam champions show {version.domain}` and choose"
            )
        return True

    @contextlib.contextmanager
    def turn(self, domain: str) -> Iterator[Callable[[], None]]:
        """See `tune.champions.turn`. Raises UserError where this process was taken for dead."""
        try:
            with turn(self.client, PREFIX + domain) as confirm:
                yield confirm
        except TurnLost as lost:
            raise UserError(f"{lost}: the machine or the server stood still; try again") from lost

    def _aliases(self, domain: str) -> dict[str, str] | None:
        """Version number by alias, read at once; None for an unknown domain."""
        model = _absent(lambda: self.client.get_registered_model(PREFIX + domain))
        return None if model is None else {alias: str(number) for alias, number in model.aliases.items()}


def _absent(ask: Callable[[], Found]) -> Found | None:
    """The answer of the store, None where it says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in UNKNOWN:
            return None
        raise


def _version(version: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = str(version.version)
    return Version(
        domain=version.name.removeprefix(PREFIX),
        number=number,
        aliases=tuple(alias for alias in ALIASES if aliases.get(alias) == number),
        source=version.source or "",
        run_id=version.run_id or "",
        created_ms=int(version.creation_timestamp or 0),
        tags=dict(version.tags),
    )
