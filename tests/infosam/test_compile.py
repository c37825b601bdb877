"""torch.compile of the encoder's blocks gives what they give uncompiled, also for the next trial of another rank."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infosam.config import RunConfig
from infosam.materials import Materials
from infosam.training import train

Configure = Callable[..., RunConfig]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_two_trials_of_different_ranks_in_one_process(materials: Materials, configure: Configure) -> None:
    last = len(materials.base.sam.image_encoder.blocks) - 1  # one block: compiling is what takes the time
    for rank in (2, 4):
        peft = {"kind": "lora", "rank": rank, "first_block": last}
        curves = []
        for compiled in (False, True):
            config = configure(peft=peft, train={"epochs": 2, "compile": compiled, "precision": "float32"})
            curves.append([epoch.values["loss/total"] for epoch in train(config, materials)])
        assert curves[1] == pytest.approx(curves[0], rel=1e-4)
