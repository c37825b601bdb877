"""All champions as one MLflow model, `infosam-auto`: for programs that know MLflow and nothing of us."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from infosam.errors import UserError
from tune.champions.lookup import bundle_of
from tune.champions.packaging import save_automatic
from tune.champions.registry import AUTO, CHAMPION, PREFIX, Registry, Version, open_registry
from tune.mlflow_store import ensure_experiment
from tune.tracking import artifact_root

MODEL = PREFIX + AUTO
FOLDER = "model"  # of the run's artifacts


def publish(uri: str, domains: Sequence[str] = ()) -> tuple[Version, list[Version], list[str]]:
    """Registers the champions of this moment, all or those of `domains`, as the new champion of `infosam-auto`.

    Returns that version, those it holds, and a sentence for each one that is broken and left out. Raises
    RegistryUnreachable, or UserError without champions that can be used, for one that is broken and was named, or for
    champions on different bases, which no pool can hold together."""
    with open_registry(uri) as registry, tempfile.TemporaryDirectory() as staging:
        bundles, model = Path(staging) / "bundles", Path(staging) / FOLDER
        included: list[Version] = []
        problems: list[str] = []
        for version in _included(registry, domains):
            try:
                shutil.copytree(bundle_of(registry, version), bundles / version.domain)
                included.append(version)
            except (UserError, OSError) as problem:
                if domains:
                    raise
                problems.append(f"{version.domain} is left out: {problem}")
        if not included:
            raise UserError("\n  ".join(["no champion can be used, so there is nothing to publish:", *problems]))
        _check_bases(bundles)
        save_automatic(bundles, model)
        contents = {version.domain: version.number for version in included}
        made = _register(registry, model, contents)
    return made, included, problems


def _included(registry: Registry, domains: Sequence[str]) -> list[Version]:
    if domains:
        return [registry.require(domain, CHAMPION) for domain in dict.fromkeys(domains)]
    found = (registry.find(domain, CHAMPION) for domain in registry.domains())
    included = [version for version in found if version is not None]
    if not included:
        raise UserError("no domain has a champion yet, so there is nothing to publish: run `infosam sweep`")
    return included


def _check_bases(bundles: Path) -> None:
    from infosam.bundle import read_bundle

    bases: dict[tuple[str, str, int], list[str]] = {}
    for folder in sorted(bundles.iterdir()):
        base = read_bundle(folder).card["base"]
        bases.setdefault((base["name"], base["sha256"], base["image_px"]), []).append(folder.name)
    if len(bases) > 1:
        there = "; ".join(f"{', '.join(names)} on {base[0]} at {base[2]} px" for base, names in bases.items())
        raise UserError(f"these champions were trained on different bases: {there}; name domains that share one")


def _register(registry: Registry, model: Path, contents: Mapping[str, str]) -> Version:
    client = registry.client
    run = client.create_run(ensure_experiment(client, MODEL, artifact_root(registry.uri)), run_name="champions")
    try:
        client.log_artifacts(run.info.run_id, str(model), FOLDER)
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    client.set_terminated(run.info.run_id)
    tags = {f"version.{domain}": number for domain, number in contents.items()}
    text = "Champions: " + ", ".join(f"{domain} version {number}" for domain, number in contents.items())
    made = registry.register(AUTO, f"{run.info.artifact_uri}/{FOLDER}", run.info.run_id, tags, text)
    client.set_registered_model_alias(MODEL, CHAMPION, made.number)
    return made
