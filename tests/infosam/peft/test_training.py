"""`infosam train` with every kind: one epoch on a tiny data set, a bundle, and the way on from its checkpoint."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infosam.bundle import read_bundle
from infosam.cli import main
from infosam.config import RunConfig
from infosam.peft.inject import METHODS
from infosam.training import Materials, train

SETTINGS = ("model.image_px=64", "train.epochs=1", "train.batch_size=2", "train.device=cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", METHODS)
def test_the_command_runs_one_epoch(spores: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--data", str(spores), "--out", str(tmp_path), f"peft.kind={kind}", *SETTINGS])
    assert caught.value.code in (0, None)
    card = read_bundle(tmp_path / "bundle").card
    assert (card["config"]["peft"]["kind"], card["epoch"]) == (kind, 1)
    assert all(math.isfinite(value) for value in card["metrics"]["adapter"].values())
    assert ("loss/balance" in card["metrics"]["adapter"]) == (kind == "conv_lora")
    assert (tmp_path / "bundle" / "peft").is_dir() == (METHODS[kind].files is not None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv_lora", "dora"])
def test_a_resumed_run_agrees_bit_for_bit(
    materials: Materials, configure: Callable[..., RunConfig], tmp_path: Path, kind: str
) -> None:
    """Of the kinds that could remember something between steps."""
    config = configure(peft={"kind": kind, "rank": 2})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run = train(config, materials, checkpoint_dir=whole)
    first = next(run)
    assert first.checkpoint is not None
    shutil.copytree(first.checkpoint, cut / first.checkpoint.name)
    last = next(run).checkpoint
    _, resumed = train(config, materials, checkpoint_dir=cut)  # first the epoch of the checkpoint, again
    assert last is not None
    assert resumed.checkpoint is not None
    expected, found = (load_file(folder / "student.safetensors") for folder in (last, resumed.checkpoint))
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []
