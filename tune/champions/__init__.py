"""The best adapter of each domain: the rule that makes a champion, the registry that keeps it, the way back to it."""

from tune.champions.lookup import champions, domains, resolve

__all__ = ["champions", "domains", "resolve"]
