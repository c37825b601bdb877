"""Turns a finished pre-training run into the weights that ship with the package, and their card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infosam.checkpoint import save_json
from infosam.errors import UserError
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.weights import load_state, resize_positions, save_state, sha256_of

MAX_MB = 12


def release(run: Path, assets: Path, name: str, *, figures: Mapping[str, Any]) -> Path:
    """Writes `assets`/NAME.safetensors in half precision and NAME.json with recipe, steps, figures and licence.

    Released weights never change. Raises UserError if the name is taken, or if the run is not finished."""
    target = assets / f"{name}.safetensors"
    if target.exists():
        raise UserError(f"{target} exists, and released weights never change; choose the next number")
    state = json.loads((run / "state.json").read_text(encoding="utf-8"))
    config = state["config"]
    if state["step"] < config["small_steps"] + config["full_steps"]:
        raise UserError(f"{run}: stopped at step {state['step']}; finish it with `infosam pretrain --out {run}`")
    spec = architecture("vit_nano")
    sam = build_sam(spec)
    sam.load_state_dict(resize_positions(load_state(run / "weights.safetensors"), sam))
    save_state(sam.state_dict(), target, half=True)
    size_mb = target.stat().st_size / 1e6
    if size_mb > MAX_MB:
        target.unlink()
        raise UserError(f"{name} would be {size_mb:.1f} MB, more than {MAX_MB}")
    card = {
        "name": name,
        "architecture": {key: getattr(spec, key) for key in ("image_px", "patch_px", "width", "depth", "heads",
                         "global_blocks", "window", "decoder_width")},
        "parameters": sum(parameter.numel() for parameter in sam.parameters()),
        "sha256": sha256_of(target),
        "storage": "float16",
        "data": "procedural scenes only (infosam.synthetic.scenes); no photograph was seen in training",
        "recipe": config,
        "steps": state["step"],
        "images": state["step"] * config["images_per_step"],
        "licence": "Apache-2.0",
        "figures": {"unseen_scenes": {"box_iou": state["box_iou"], "point_iou": state["point_iou"]}, **figures},
    }  # fmt: skip
    save_json(card, assets / f"{name}.json")
    return target
