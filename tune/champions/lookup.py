"""From a version of the registry to a bundle on this machine.

Of what the registry holds, only the bundle's card and the JSON and safetensors files it names are read, each against
its SHA-256; code is neither fetched nor run."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from infosam.errors import UserError
from tune.champions.packaging import BUNDLE
from tune.champions.registry import CHAMPION, Registry, Version, exists, open_registry
from tune.home import find_home

CARD_DIGEST = "card_sha256"
"""Tag of a version: SHA-256 of the card, which holds those of all other files."""


def champions(uri: str | None = None) -> list[Version]:
    """Every domain's champion, by domain; none if there is no store yet. Raises RegistryUnreachable."""
    uri = uri or find_home().tracking_uri
    if not exists(uri):
        return []
    with open_registry(uri) as registry:
        found = (registry.find(domain, CHAMPION) for domain in registry.domains())
        return [version for version in found if version is not None]


def domains() -> list[str]:
    """Domains that have a champion (entry point `infosam.domains`)."""
    return [champion.domain for champion in champions()]


def resolve(domain: str) -> Path | None:
    """The bundle folder of a domain's champion, fetched if it lies elsewhere (entry point `infosam.resolvers`).

    Raises RegistryUnreachable, or UserError if the bundle is gone or broken."""
    uri = find_home().tracking_uri
    if not exists(uri):
        return None
    with open_registry(uri) as registry:
        version = registry.find(domain, CHAMPION)
        return None if version is None else bundle_of(registry, version)


def bundle_of(registry: Registry, version: Version) -> Path:
    """The folder of a version's bundle, whole: where it lies if that is on this machine, else a copy in the results
    folder that is fetched once. Raises UserError for one that is gone, broken, or not the one that was registered."""
    from infosam.bundle import read_bundle

    place = _local(version)
    folder = place or find_home().folder / "champions" / f"{version.domain}-{_registered_digest(version)[:16]}"
    try:
        _check_card(folder, version)
        read_bundle(folder)
    except (UserError, OSError) as problem:
        if place is not None:
            raise _broken(version, problem) from problem
        shutil.rmtree(folder, ignore_errors=True)
        _fetch(registry, version, folder)
    return folder


def read_card(registry: Registry, version: Version) -> dict[str, Any]:
    """A version's card without the rest of its bundle. Raises UserError as `bundle_of`."""
    place = _local(version)
    if place is not None:
        return _check_card(place, version)
    with tempfile.TemporaryDirectory() as folder:
        return _fetch_card(registry, version, Path(folder))


def digest_of(bundle: Path) -> str:
    """What a version's tag `CARD_DIGEST` says about a bundle."""
    from infosam.bundle import CARD_FILE

    return hashlib.sha256((bundle / CARD_FILE).read_bytes()).hexdigest()


def _local(version: Version) -> Path | None:
    parts = urlparse(version.source)
    return Path(unquote(parts.path)) / BUNDLE if parts.scheme in ("", "file") else None


def _fetch(registry: Registry, version: Version, folder: Path) -> None:
    """Fills `folder` completely or not at all; several processes may do so at once."""
    from infosam.bundle import CARD_FILE, check_names, read_bundle

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent) as staging:
        part = Path(staging) / "bundle"
        part.mkdir()
        files = _fetch_card(registry, version, part).get("files", {})
        try:
            check_names(files, part / CARD_FILE)
            for name in files:
                _download(registry, version, name, part)
            read_bundle(part)
        except UserError as problem:
            raise _broken(version, problem) from problem
        if not folder.exists():  # else another process was faster, and fetched the same
            part.replace(folder)


def _fetch_card(registry: Registry, version: Version, folder: Path) -> dict[str, Any]:
    from infosam.bundle import CARD_FILE

    _download(registry, version, CARD_FILE, folder)
    return _check_card(folder, version)


def _download(registry: Registry, version: Version, name: str, folder: Path) -> None:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    target = (folder / name).parent
    target.mkdir(parents=True, exist_ok=True)
    uri = f"{version.source}/{BUNDLE}/{name}"
    try:
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target), tracking_uri=registry.uri)
    except (MlflowException, OSError) as error:  # requests' errors are OSErrors
        raise _broken(version, f"{uri} cannot be fetched: {error}") from error


def _check_card(folder: Path, version: Version) -> dict[str, Any]:
    from infosam.bundle import CARD_FILE

    try:
        content = (folder / CARD_FILE).read_bytes()
    except OSError as error:
        raise _broken(version, f"{folder} is gone: {error}") from error
    if hashlib.sha256(content).hexdigest() != _registered_digest(version):
        raise _broken(version, f"{folder / CARD_FILE} is not the card that was registered")
    card: dict[str, Any] = json.loads(content)
    return card


def _registered_digest(version: Version) -> str:
    digest = version.tags.get(CARD_DIGEST, "")
    if len(digest) != 64:
        raise _broken(version, f"it has no tag {CARD_DIGEST}, so it was not registered by infosam")
    return digest


def _broken(version: Version, problem: object) -> UserError:
    return UserError(
        f"{version.name} cannot be used: {problem}; restore its artifacts, or choose another version: "
        f"`infosam champions show {version.domain}`, then `rollback {version.domain}` or `promote`"
    )
