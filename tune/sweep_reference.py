"""docs/sweep-file.md, made from the models of the configuration: every key with its values, default and meaning.

python -m tune.sweep_reference > docs/sweep-file.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tune.config import DomainsConfig, SweepConfig, default_space
from tune.config.search import NOT_OFFERED, PAIRS
from tune.space import KINDS

OPENING = """\
# The sweep file

One YAML file says what a sweep searches, how, on what, and where it is recorded. `infosam sweep init` writes one,
`infosam sweep default data=DIR` runs the shipped one, and `infosam sweep MY.yaml search.trials=32` changes single keys
on the command line. All keys but `data` have defaults; an unknown key, a value out of bounds, or two keys that
contradict each other are refused before anything starts, all at once, with the nearest known name.

At its start a sweep writes the file in full, with nothing left to the surroundings, to `sweeps/NAME/sweep.yaml`;
running that file repeats the sweep.

*Made by `python -m tune.sweep_reference` from the configuration's own docstrings; a test keeps it current.*
"""

DOMAINS = """\
## Several domains

A file may name several domains, and `infosam sweep default domains=[DIR1,DIR2]` does so on the command line;
[several-domains.md](several-domains.md) says what is shared and how such sweeps go on.
"""

SPACE = """\
Each entry of `space` is a dotted path below `run`, such as `optim.lr`, with one of the distributions below. A path
that only some trials have says `when`. Default:

```yaml
{default}```
"""


def sweep_reference() -> str:
    """The whole page, in Markdown."""
    parts = [OPENING, "## Top level\n", _prose(SweepConfig), _table(SweepConfig)]
    parts += [DOMAINS, _prose(DomainsConfig), _table(DomainsConfig)]
    parts += _sections(SweepConfig, "")
    parts += ["## space\n", SPACE.format(default=_space())]
    for name, model in KINDS.items():
        parts += [f"### {name}\n", _prose(model), _table(model)]
    parts += ["## Samplers and schedulers\n", _pairs()]
    return "\n".join(part for part in parts if part)


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        below = _models_in(field.annotation) if name != "space" else []
        for one in below:
            kind = one.model_fields["kind"].default if len(below) > 1 else None
            yield f"{'#' * min(4, 2 + path.count('.'))} {path}{f' (kind: {kind})' if kind else ''}\n"
            yield _prose(one)
            yield _table(one)
            yield from _sections(one, f"{path}.")


def _is_tag(field: FieldInfo) -> bool:
    """Whether a field only tells one model from others, which the heading says."""
    return len(get_args(field.annotation)) == 1


def _prose(model: type[BaseModel]) -> str:
    return f"{inspect.cleandoc(model.__doc__ or '')}\n"


def _table(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    shown = [(name, field) for name, field in model.model_fields.items() if not _models_in(field.annotation)]
    shown = [(name, field) for name, field in shown if name != "space" and not (name == "kind" and _is_tag(field))]
    if not shown:
        return ""
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in shown:
        values = _values(schema["properties"][name], schema.get("$defs", {}))
        meaning = " ".join((field.description or "").split())
        rows.append("| " + " | ".join(_cell(text) for text in (f"`{name}`", values, _default(field), meaning)) + " |")
    return "\n".join(rows) + "\n"


def _values(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """What a field takes, in words, from its JSON schema."""
    if "$ref" in schema:
        return _values(known[schema["$ref"].rpartition("/")[2]], known)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_values(one, known) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{_yaml(one)}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_values(items, known)}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`",
             "object": "mapping", "null": "`null`"}  # fmt: skip
    name = "path" if schema.get("format") == "path" else words.get(schema.get("type", ""), "any value")
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<="))
        if key in schema
    ]
    return " ".join([name, ", ".join(bounds)]).strip()


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return f"`{_yaml(field.default_factory())}`"  # type: ignore[call-arg]
    return "required" if field.default is PydanticUndefined else f"`{_yaml(field.default)}`"


def _yaml(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(plain, default_flow_style=True, width=10_000)).removesuffix("\n...\n").strip()


def _space() -> str:
    settings = {
        path: one.model_dump(mode="json", exclude_defaults=True, exclude={"when"})
        | ({"when": one.when} if one.when else {})
        for path, one in default_space().items()
    }
    return "".join(
        f"  {path}: {yaml.safe_dump(one, default_flow_style=True, sort_keys=False, width=1000)}"
        for path, one in settings.items()
    ).join(["space:\n", ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models a field may hold."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) in (dict, list, tuple):
        return []
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _pairs() -> str:
    schedulers = sorted({name for allowed in PAIRS.values() for name in allowed}, key=["none", "asha", "median"].index)
    rows = ["| sampler | " + " | ".join(schedulers) + " |", "|---" * (len(schedulers) + 1) + "|"]
    for sampler, allowed in PAIRS.items():
        marks = ("yes" if name in allowed else "only with `search.force: true`" for name in schedulers)
        rows.append(f"| `{sampler}` | " + " | ".join(marks) + " |")
    refused = [f"- `{name}`: {why}" for name, why in NOT_OFFERED.items()]
    return "\n".join([*rows, "", "Not offered as `scheduler.kind`:", "", *refused]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(sweep_reference())
