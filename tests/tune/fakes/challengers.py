"""Challengers whose bundles are tiny but whole: made in a test, or in a process of their own that offers one.

python challengers.py STORE ARTIFACTS FOLDER DICE: makes one, says so, waits for a line, promotes, prints what came."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tune.champions.promotion import Challenger, promote
from tune.champions.rule import Evidence, PerImage
from tune.tracking import new_client

IMAGES = 8


def write_bundle(folder: Path, dice: float, **changes: Any) -> Path:
    """A bundle that says it scores `dice`, without weights in it."""
    folder.mkdir(parents=True)
    (folder / "rest.safetensors").write_bytes(f"weights {dice}".encode())
    scores = {f"val/{prompt}/dice": dice for prompt in ("box", "none")}
    card = {
        "format": 1,
        "domain": "polyp",
        "base": {"name": "vit_nano", "sha256": "b" * 64, "image_px": 64},
        "config": {"model": {}, "peft": {"kind": "lora", "rank": 2}},
        "trainable": [],
        "seed": 7,
        "sweep_id": "polyp-1",
        "trial_id": "t0003",
        "data_digest": "d" * 64,
        "metrics": {"adapter": scores, "zero_shot": dict.fromkeys(scores, 0.6), "trivial": dict.fromkeys(scores, 0.7)},
        "files": {"rest.safetensors": hashlib.sha256((folder / "rest.safetensors").read_bytes()).hexdigest()},
    } | changes
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def evidence(dice: float) -> Evidence:
    """Of a bundle that scores `dice` on every image, where zero-shot has 0.6 and the best trivial baseline 0.7."""
    return Evidence(prompt="box", adapter=same(dice), zero_shot=same(0.6), trivial=same(0.7))


def same(dice: float) -> PerImage:
    return np.full(IMAGES, dice)


def rescore(bundle: Path) -> PerImage:
    """What the bundle says of itself."""
    card = json.loads((bundle / "card.json").read_text())
    return same(card["metrics"]["adapter"]["val/box/dice"])


def challenger(uri: str, artifacts: str | None, folder: Path, dice: float, **changes: Any) -> Challenger:
    """A challenger with a run of its own, whose artifacts lie below `artifacts`, or where the server says."""
    client = new_client(uri)
    found = client.get_experiment_by_name("polyp")
    number = found.experiment_id if found else client.create_experiment("polyp", artifact_location=artifacts)
    run = client.create_run(number)
    bundle = write_bundle(folder / run.info.run_id / "bundle", dice, **changes)
    return Challenger(domain="polyp", bundle=bundle, run_id=run.info.run_id, evidence=evidence(dice))


if __name__ == "__main__":
    store, place, trials, score = sys.argv[1:]
    mine = challenger(store, place, Path(trials), float(score))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(dataclasses.asdict(promote(store, mine, rescore))), flush=True)
