"""What Google Compute Engine knows of its instances, as the document of its own client says."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import googleapiclient
from jsonschema import Draft7Validator

DOCUMENT = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / "compute.v1.json"


def problems_of_instance(settings: dict[str, Any]) -> list[str]:
    """What Google would refuse or drop of an instance's settings: unknown keys at any depth, wrong types and values."""
    return [f"{error.json_path}: {error.message}" for error in _instance().iter_errors(settings)]


@cache
def _instance() -> Draft7Validator:
    schemas = json.loads(DOCUMENT.read_text(encoding="utf-8"))["schemas"]
    definitions = {name: _closed(schema) for name, schema in schemas.items()}
    return Draft7Validator({"$ref": "#/definitions/Instance", "definitions": definitions})


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of Google's discovery service as JSON Schema that refuses unknown keys."""
    if "$ref" in schema:
        return {"$ref": f"#/definitions/{schema['$ref']}"}
    kept: dict[str, Any] = {key: schema[key] for key in ("type", "enum") if key in schema and schema[key] != "any"}
    if schema.get("format") in ("int64", "uint64"):  # written as text, because numbers of JavaScript are shorter
        kept["type"] = ["string", "integer"]
    if "items" in schema:
        kept["items"] = _closed(schema["items"])
    if "properties" in schema:
        kept["properties"] = {name: _closed(part) for name, part in schema["properties"].items()}
    if schema.get("type") == "object":
        extra = schema.get("additionalProperties")
        kept["additionalProperties"] = _closed(extra) if isinstance(extra, dict) else False
    return kept
