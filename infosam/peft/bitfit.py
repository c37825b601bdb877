"""BitFit (Ben Zaken et al., ACL 2022) on the image encoder: only biases train, those of the LayerNorms included.

It adds nothing, so the result is a plain SAM. The convolutions of SAM's neck have no bias.
"""

from __future__ import annotations

from segment_anything.modeling import Sam

from infosam.peft.config import BitFitConfig
from infosam.peft.full import names_from


def inject(sam: Sam, config: BitFitConfig) -> list[str]:
    """Changes nothing; returns the names of the biases from the first block on."""
    return [name for name in names_from(sam, config.first_block) if name.endswith(".bias")]
