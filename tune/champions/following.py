"""Keeps a pool of adapters at what the registry says: promotions and rollbacks arrive without a restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infosam.errors import UserError
from tune.champions.lookup import CARD_DIGEST, bundle_of
from tune.champions.registry import CHAMPION, Version, exists, open_registry
from tune.home import find_home

log = logging.getLogger(__name__)


class Pool(Protocol):
    """What keeps the adapters; `infosam.routing.pool.AdapterPool` is one."""

    def add(self, domain: str, bundle: Path, version: str | None = None) -> None:
        """Takes a bundle in, instead of an older one of the domain. Raises UserError, and changes nothing then."""

    def remove(self, domain: str) -> None:
        """Lets a domain go."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a domain of the pool has followed. `version` is in use, None for none; `problem` says why a newer one is
    not."""

    version: str | None
    problem: str | None = None


class ChampionFollower:
    """Looks at the registry again and again, and gives the pool what has changed.

    Whatever fails, the pool keeps what it has: an unreachable registry, or a champion whose bundle is broken or gone.
    """

    def __init__(self, pool: Pool, *, uri: str | None = None, every_s: float = 10.0) -> None:
        self._pool = pool
        self._uri = uri or find_home().tracking_uri
        self._every_s = every_s
        self._used: dict[str, tuple[str, str]] = {}  # number and digest of the version in the pool, by domain
        self._standings: Mapping[str, Standing] = {}
        self._trouble: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def standings(self) -> Mapping[str, Standing]:
        """Of every domain that has a champion, as of the last look."""
        return self._standings

    @property
    def trouble(self) -> str | None:
        """Why the last look saw nothing, if it did not."""
        return self._trouble

    def look(self) -> list[str]:
        """Brings the pool up to date once; what changed, a sentence each."""
        try:
            changes = self._follow()
        except UserError as error:
            if self._trouble is None:
                log.warning("the champions cannot be looked up, so those in use stay: %s", error)
            self._trouble = str(error)
            return []
        self._trouble = None
        for change in changes:
            log.info("%s", change)
        return changes

    def start(self) -> None:
        """Looks every `every_s` seconds from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="champion-follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; returns when a look that is under way is over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.look()
            except Exception:  # the server goes on with the adapters it has
                log.exception("looking for new champions failed")

    def _follow(self) -> list[str]:
        if not exists(self._uri):
            return []
        changes: list[str] = []
        standings: dict[str, Standing] = {}
        with open_registry(self._uri) as registry:
            found = {domain: registry.find(domain, CHAMPION) for domain in registry.domains()}
            for domain, version in found.items():
                if version is None:
                    continue
                problem = None
                if self._used.get(domain) != _identity(version):
                    try:
                        self._pool.add(domain, bundle_of(registry, version), version.number)
                    except (UserError, OSError) as error:
                        problem = f"version {version.number} cannot be used: {error}"
                        self._warn(domain, problem)
                    else:
                        self._used[domain] = _identity(version)
                        changes.append(f"{domain}: version {version.number} is in use")
                used = self._used.get(domain)
                standings[domain] = Standing(version=used[0] if used else None, problem=problem)
        for domain in self._used.keys() - standings.keys():
            self._pool.remove(domain)
            del self._used[domain]
            changes.append(f"{domain}: has no champion any more")
        self._standings = standings
        return changes

    def _warn(self, domain: str, problem: str) -> None:
        """Once for each problem, not at every look."""
        known = self._standings.get(domain)
        if known is None or known.problem != problem:
            log.warning("%s: %s", domain, problem)


def _identity(version: Version) -> tuple[str, str]:
    return version.number, version.tags.get(CARD_DIGEST, version.source)
