"""The public data sets that `infosam data fetch` knows: where they are, what they may be used for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml
from pydantic import Field, TypeAdapter

from infosam.errors import DataError
from infosam.strict import Strict


class PublicSet(Strict):
    """One entry of `assets/public_sets.yaml`. What nobody has published is None, never a guess."""

    title: str
    domain: str
    address: str | None
    sha256: str | None = Field(pattern="^[0-9a-f]{64}$")
    bytes: int | None = Field(gt=0)
    licence: str
    homes: tuple[str, ...] = Field(min_length=1)


@cache
def public_sets() -> Mapping[str, PublicSet]:
    """All entries by name."""
    text = (files("infosam") / "assets" / "public_sets.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, PublicSet]).validate_python(yaml.safe_load(text))


def public_set(name: str) -> PublicSet:
    """The entry of a name. Raises DataError if there is none."""
    known = public_sets()
    if name not in known:
        raise DataError(f"data set {name!r} is not known; choose one of {', '.join(known)}")
    return known[name]


def checked_sum(text: str) -> str:
    """A SHA-256 that a user gives. Raises DataError if it is none."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text.strip()):
        raise DataError(f"--sha256 {text!r}: not a SHA-256; it has 64 hexadecimal digits")
    return text.strip().lower()
