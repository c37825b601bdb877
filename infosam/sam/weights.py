"""Weights of SAM: official checkpoints checked by SHA-256, our own from the package, other canvas sizes by resizing."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.checkpoint import save_tensors
from infosam.config import ModelConfig
from infosam.errors import WeightsError
from infosam.sam.architectures import Architecture, architecture, build_sam

NANO_RELEASE = "vit_nano-1"  # released weights never change: better ones get a new number
# What the readers of safetensors and of pickles raise on damaged files; a broken pickle fails anywhere.
_UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, TypeError, AttributeError,
    LookupError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class BaseSam:
    """A frozen pre-trained SAM and what it is."""

    sam: Sam
    spec: Architecture
    sha256: str  # of the weights file


def load_base(config: ModelConfig) -> BaseSam:
    """The frozen SAM a configuration names, in eval mode, on its canvas.

    Raises WeightsError for a missing, truncated or unknown file, ConfigError for a canvas the patch size does not fit.
    """
    spec = architecture(config.name, config.image_px)
    path = weights_path(config)
    digest = sha256_of(path)
    _check_sum(spec, config, path, digest)
    sam = build_sam(spec)
    state = load_state(path)
    try:
        sam.load_state_dict(resize_positions(state, sam))
    except RuntimeError as error:
        first, *rest = str(error).splitlines()
        raise WeightsError(f"{path}: not the weights of {spec.name}: {rest[0].strip() if rest else first}") from error
    return BaseSam(sam=sam.requires_grad_(False), spec=spec, sha256=digest)


def weights_path(config: ModelConfig) -> Path:
    """Where the weights of a configuration lie. Raises WeightsError with advice if they are not there."""
    if config.checkpoint is not None:
        if not config.checkpoint.is_file():
            raise WeightsError(f"model.checkpoint: no such file: {config.checkpoint}")
        return config.checkpoint
    if config.name != "vit_nano":
        raise WeightsError(
            f"model.checkpoint is not set: {config.name} needs its official checkpoint file "
            f"(see the README of segment-anything), SHA-256 {architecture(config.name).sha256}"
        )
    return Path(str(files("infosam") / "assets" / f"{NANO_RELEASE}.safetensors"))


def nano_card() -> dict[str, Any]:
    """Recipe, seed, steps, figures and licence of the shipped vit_nano weights."""
    text = (files("infosam") / "assets" / f"{NANO_RELEASE}.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text)
    return card


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; remembered while its size and modification time stay the same."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def load_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` or official `.pth` file, as float32. Raises WeightsError if it cannot be read."""
    try:
        if path.suffix == ".safetensors":
            state: dict[str, Tensor] = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(f"{path}: cannot be read as weights, it may be truncated: {_first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: expected a mapping of names to tensors")
    return {name: tensor.float() for name, tensor in state.items()}


def save_state(state: Mapping[str, Tensor], path: Path, *, half: bool = False) -> None:
    """Writes weights as safetensors, in half precision if asked."""
    save_tensors({name: tensor.half() if half else tensor for name, tensor in state.items()}, path)


def resize_positions(state: Mapping[str, Tensor], sam: Sam) -> dict[str, Tensor]:
    """`state` with absolute and relative position embeddings interpolated to the shapes that `sam` has.

    Absolute ones (1, h, w, C) bicubically, relative ones (2 h - 1, C) linearly, as segment_anything does for the
    latter. Other tensors pass unchanged."""
    wanted = {name: tensor.shape for name, tensor in sam.state_dict().items()}
    result = dict(state)
    for name, tensor in state.items():
        shape = wanted.get(name)
        if shape is None or shape == tensor.shape:
            continue
        if name.endswith("pos_embed"):
            grid = F.interpolate(
                tensor.permute(0, 3, 1, 2), size=(shape[1], shape[2]), mode="bicubic", align_corners=False
            )
            result[name] = grid.permute(0, 2, 3, 1)
        elif name.endswith(("rel_pos_h", "rel_pos_w")):
            result[name] = F.interpolate(tensor.T[None], size=shape[0], mode="linear")[0].T
    return result


def _first_line(error: Exception) -> str:
    """torch follows the reason with a page on how to switch the safety off."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_sum(spec: Architecture, config: ModelConfig, path: Path, digest: str) -> None:
    if config.checkpoint is None or spec.sha256 is None or digest == spec.sha256:
        return
    size_mib = path.stat().st_size / 2**20
    raise WeightsError(
        f"{path}: SHA-256 is {digest}, but the official {spec.name} checkpoint has {spec.sha256}; the file "
        f"({size_mib:.1f} MiB) is truncated, altered, or of another model: fetch it again"
    )


@cache
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
