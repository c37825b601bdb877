"""Entry points: how packages above this one (`tune`, `cluster`, a user's own) add commands and resolvers.

The dependency points one way only. This package never imports what extends it; the installed distributions announce
themselves in their metadata, and a broken extension is reported as a problem instead of breaking everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

COMMANDS = "infosam.commands"
"""Group of callables `register(app: typer.Typer) -> None`."""
RESOLVERS = "infosam.resolvers"
"""Group of callables `resolve(domain: str) -> Path | None`: the adapter bundle of a domain's champion."""
DOMAINS = "infosam.domains"
"""Group of callables `domains() -> list[str]`: the domains that have a champion."""


@dataclass(frozen=True)
class Plugins:
    """What a group of entry points offers, and what of it could not be loaded."""

    found: dict[str, Callable[..., Any]]
    problems: list[str]


def load_plugins(group: str) -> Plugins:
    """Imports every entry point of `group`, sorted by name; one that fails to import becomes a problem."""
    found: dict[str, Callable[..., Any]] = {}
    problems: list[str] = []
    for point in sorted(entry_points(group=group), key=lambda each: each.name):
        try:
            found[point.name] = point.load()
        except Exception as error:  # noqa: BLE001 - any fault of a foreign module, a SyntaxError included, is a problem
            problems.append(describe_fault(group, point.name, point.value, error))
    return Plugins(found, problems)


def describe_fault(group: str, name: str, target: str, error: Exception) -> str:
    """One line about an extension that does not work: which, where it comes from, and why."""
    return f"{group} entry point {name!r} ({target}) is not available: {type(error).__name__}: {error}"
