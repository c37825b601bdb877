"""The best adapter of each domain: the rule that makes a champion, the registry that keeps it, the way back to it."""

from tune.champions.lookup import champions, domains, resolve
from tune.champions.pooling import pool

__all__ = ["champions", "domains", "pool", "resolve"]
