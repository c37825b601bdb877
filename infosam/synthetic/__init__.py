"""Procedural pictures with exact masks: scenes to pre-train on, and a small domain to try the product with."""

from infosam.synthetic.domains import write_demo_domain

__all__ = ["write_demo_domain"]
