"""Makes kuberay.json from KubeRay's custom resource definitions: `python condense.py FOLDER/ray.io_*.yaml`.

Only what a manifest is checked against is kept: the schema of version v1, without descriptions. Parts that occur more
than once (pods, above all) are written once. Objects are closed: Kubernetes drops unknown keys without a word, so that
a misspelt one would have no effect.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SMALLEST = 400
"""Characters of JSON from which on a repeated part is worth a definition."""
ANNOTATIONS = {"description", "default"}


def closed(schema: Any) -> Any:
    """A Kubernetes schema as JSON Schema: extensions applied or dropped, unknown keys of objects refused."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {key: part for key, part in schema.items() if not key.startswith("x-") and key not in ANNOTATIONS}
    if "properties" in kept:
        kept["properties"] = {name: closed(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = closed(kept[key])
    kept.pop("format", None)
    return kept


def parts(schema: Any) -> Iterator[str]:
    """Every object schema within a schema, as JSON."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield json.dumps(schema, sort_keys=True)
        for part in schema.values():
            yield from parts(part)


def shared(schema: Any, names: dict[str, str]) -> Any:
    """A schema that refers to the parts in `names`, largest first."""
    if not isinstance(schema, dict):
        return schema
    if (text := json.dumps(schema, sort_keys=True)) in names:
        return {"$ref": f"#/$defs/{names[text]}"}
    return {key: shared(part, names) for key, part in schema.items()}


def condense(paths: list[Path]) -> dict[str, Any]:
    """The schemas of all kinds by name, with their shared parts under `$defs`."""
    kinds = {}
    for path in paths:
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        version = next(each for each in definition["versions"] if each["name"] == "v1")
        kinds[definition["names"]["kind"]] = closed(version["schema"]["openAPIV3Schema"])
    counts = Counter(text for schema in kinds.values() for text in parts(schema))
    repeated = [text for text, count in counts.items() if count > 1 and len(text) >= SMALLEST]
    names = {text: str(number) for number, text in enumerate(sorted(repeated))}
    inner = {name: {key: shared(part, names) for key, part in json.loads(text).items()} for text, name in names.items()}
    return {"kinds": {kind: shared(schema, names) for kind, schema in kinds.items()}, "$defs": inner}


if __name__ == "__main__":
    found = condense([Path(argument) for argument in sys.argv[1:]])
    Path(__file__).with_name("kuberay.json").write_text(
        json.dumps(found, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8"
    )
