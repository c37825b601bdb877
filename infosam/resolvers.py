"""From the name of a domain to the folder of its champion's adapter bundle.

Who keeps champions is not known here: every installed resolver is asked in turn (see `infosam.plugins`).
"""

from __future__ import annotations

import difflib
from pathlib import Path

from infosam.errors import UnknownDomain
from infosam.plugins import DOMAINS, RESOLVERS, load_plugins


def resolve_domain(domain: str) -> Path:
    """The champion's bundle of `domain`. Raises UnknownDomain that names the domains there are."""
    resolvers = load_plugins(RESOLVERS)
    for resolve in resolvers.found.values():
        bundle = resolve(domain)
        if bundle is not None:
            return Path(bundle)
    known, problems = known_domains()
    raise UnknownDomain("\n  ".join([_unknown(domain, known), *resolvers.problems, *problems]))


def known_domains() -> tuple[list[str], list[str]]:
    """Every domain that has a champion, sorted, and the extensions that could not be asked."""
    plugins = load_plugins(DOMAINS)
    names = {name for domains in plugins.found.values() for name in domains()}
    return sorted(names), plugins.problems


def _unknown(domain: str, known: list[str]) -> str:
    if not known:
        return (
            f"domain {domain!r} has no champion, nor has any other yet: run `infosam sweep`, or name a bundle's folder"
        )
    close = difflib.get_close_matches(domain, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"domain {domain!r} has no champion; {hint}known domains: {', '.join(known)}"
