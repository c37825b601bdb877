"""Seeds made of several numbers, such as (seed, epoch, image)."""

from __future__ import annotations

import numpy as np


def seed_of(*parts: int) -> int:
    """One seed for torch from several numbers >= 0, without collisions between neighbours."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
