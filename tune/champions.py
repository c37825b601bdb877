"""The best adapter of each domain: when a bundle becomes champion, where it is kept, how it is found again.

A champion is a version of the MLflow model `infosam-<domain>` with the alias `champion`; the version's source is the
bundle folder of its trial, plain JSON and safetensors. Only validation scores decide; test scores never come here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from infosam.errors import UserError
from tune.home import find_home
from tune.resources import environment
from tune.tracking import CLIENT_SETTINGS, new_client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PREFIX = "infosam-"
ALIAS = "champion"
REASON_LIMIT = 1000


class RegistryUnreachable(UserError):
    """Nobody answers where the champions are kept."""


Scores = Mapping[str, float]
"""`val/box/dice`, `val/none/dice` and the same for iou."""


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """A trained bundle with everything that decides about it."""

    domain: str
    prompt: str  # "box" or "none": whose validation Dice counts
    scores: Scores
    zero_shot: Scores
    trivial: Scores
    data_digest: str
    base_sha256: str
    bundle_uri: str  # artifact location of the bundle
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Incumbent:
    """The present champion of the domain. `scores` are on the challenger's validation images, None if unknown."""

    version: str
    scores: Scores | None
    why_unknown: str = ""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What was decided. `reasons` speak for a promoted bundle, or say what a refused one lacks."""

    promoted: bool
    model: str
    version: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A domain's champion as the registry has it."""

    domain: str
    version: str
    source: str
    run_id: str
    tags: Mapping[str, str]


def judge(challenger: Challenger, incumbent: Incumbent | None) -> tuple[bool, tuple[str, ...]]:
    """Whether the challenger beats zero-shot, the best trivial baseline and the incumbent, by its validation Dice."""
    key = f"val/{challenger.prompt}/dice"
    score = challenger.scores[key]
    rivals = {"zero-shot": challenger.zero_shot[key], "the best trivial baseline": challenger.trivial[key]}
    against: list[str] = []
    if incumbent is not None and incumbent.scores is not None:
        rivals[f"champion version {incumbent.version}"] = incumbent.scores[key]
    elif incumbent is not None:
        against.append(f"champion version {incumbent.version} cannot be compared, so it stays: {incumbent.why_unknown}")
    beaten: list[str] = []
    unbeaten: list[str] = []
    for name, rival in rivals.items():
        text = f"val dice {score:.4f} ({challenger.prompt} prompt)"
        (beaten if score > rival else unbeaten).append(
            f"{text} {'beats' if score > rival else 'does not beat'} {name} at {rival:.4f}"
        )
    refused = unbeaten + against
    return not refused, tuple(refused or beaten)


def promote(uri: str, challenger: Challenger, rescore: Callable[[Path], Scores]) -> Promotion:
    """Registers the challenger as champion of its domain, if it earned that. Raises MlflowException.

    Args:
        rescore: scores of a bundle on the challenger's validation images, for a champion that was chosen on others.
            May raise UserError; then the champion stays."""
    from mlflow.exceptions import MlflowException

    client = new_client(uri)
    model = PREFIX + challenger.domain
    promoted, reasons = judge(challenger, _incumbent(uri, client, model, challenger, rescore))
    if not promoted:
        return Promotion(promoted=False, model=model, version=None, reasons=reasons)
    try:
        client.create_registered_model(
            model,
            tags={"domain": challenger.domain},
            description=f"Adapters of InfoSAM for the domain {challenger.domain}",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        **challenger.tags,
        **{key: f"{value:.6f}" for key, value in challenger.scores.items()},
        "prompt": challenger.prompt,
        "data_digest": challenger.data_digest,
        "base_sha256": challenger.base_sha256,
        "reasons": "; ".join(reasons)[:REASON_LIMIT],
    }
    version = client.create_model_version(model, challenger.bundle_uri, run_id=challenger.run_id, tags=tags)
    client.set_registered_model_alias(model, ALIAS, version.version)
    return Promotion(promoted=True, model=model, version=str(version.version), reasons=reasons)


def champions(uri: str | None = None) -> list[Champion]:
    """Every domain's champion, by domain; none if there is no store yet. Raises RegistryUnreachable."""
    uri = uri or find_home().tracking_uri
    if not _exists(uri):
        return []
    found = []
    with _registry(uri) as client:
        for model in client.search_registered_models(f"name LIKE '{PREFIX}%'"):
            if ALIAS in model.aliases:
                found.append(_champion(client.get_model_version_by_alias(model.name, ALIAS)))
    return sorted(found, key=lambda champion: champion.domain)


def domains() -> list[str]:
    """Domains that have a champion (entry point `infosam.domains`)."""
    return [champion.domain for champion in champions()]


def resolve(domain: str) -> Path | None:
    """The bundle folder of a domain's champion, fetched if it lies elsewhere (entry point `infosam.resolvers`).

    Raises RegistryUnreachable, or UserError if the bundle is gone."""
    home = find_home()
    if not _exists(home.tracking_uri):
        return None
    with _registry(home.tracking_uri) as client:
        found = _by_alias(client, PREFIX + domain)
        return _located(_champion(found), home.folder / "champions", home.tracking_uri) if found else None


@contextlib.contextmanager
def _registry(uri: str) -> Iterator[MlflowClient]:
    """A client for a person who waits: few retries, and a plain word if nobody answers."""
    from mlflow.exceptions import MlflowException

    with environment(CLIENT_SETTINGS):
        try:
            yield new_client(uri)
        except MlflowException as error:
            raise RegistryUnreachable(
                f"the model registry at {uri} (MLFLOW_TRACKING_URI) cannot be used: {error}"
            ) from error


def _located(champion: Champion, cache: Path, uri: str) -> Path:
    parts = urlparse(champion.source)
    if parts.scheme in ("", "file"):
        folder = Path(unquote(parts.path))
        if not folder.is_dir():
            raise UserError(
                f"the champion of {champion.domain}, version {champion.version}, lay in {folder}, which is "
                "gone; run the sweep again or restore that folder"
            )
        return folder
    folder = cache / f"{champion.domain}-v{champion.version}"
    if not folder.is_dir():
        import mlflow.artifacts

        staging = folder.with_name(folder.name + ".part")
        staging.mkdir(parents=True, exist_ok=True)
        fetched = mlflow.artifacts.download_artifacts(
            artifact_uri=champion.source, dst_path=str(staging), tracking_uri=uri
        )
        Path(fetched).replace(folder)
    return folder


def _incumbent(
    uri: str, client: MlflowClient, model: str, challenger: Challenger, rescore: Callable[[Path], Scores]
) -> Incumbent | None:
    version = _by_alias(client, model)
    if version is None:
        return None
    number = str(version.version)
    if version.tags.get("data_digest") == challenger.data_digest:
        recorded = {key: float(value) for key, value in version.tags.items() if key.startswith("val/")}
        return Incumbent(version=number, scores=recorded)
    try:
        bundle = _located(_champion(version), find_home().folder / "champions", uri)
        return Incumbent(version=number, scores=rescore(bundle))
    except UserError as error:
        return Incumbent(version=number, scores=None, why_unknown=str(error))


def _by_alias(client: MlflowClient, model: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, ALIAS)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _champion(version: ModelVersion) -> Champion:
    return Champion(
        domain=version.name.removeprefix(PREFIX),
        version=str(version.version),
        source=version.source or "",
        run_id=version.run_id or "",
        tags=version.tags,
    )


def _exists(uri: str) -> bool:
    """Whether a local database is there: asking MLflow would make an empty one."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()
