"""What a trial's id tells: `t0007` is of the search, `r0007-s1` repeats it under the second seed, `w0007-s1` is its
twin without information terms under that seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Role = Literal["trial", "repeat", "twin"]
ROLES: Mapping[str, Role] = {"t": "trial", "r": "repeat", "w": "twin"}
LETTERS = {role: letter for letter, role in ROLES.items()}


def role_of(trial_id: str) -> Role:
    """What a trial is for."""
    return ROLES[trial_id[0]]


def final_id(role: Role, origin: str, number: int) -> str:
    """Id of the run with seed number `number`, from 0, of the configuration that trial `origin` of the search found."""
    return f"{LETTERS[role]}{origin[1:]}-s{number}"
