"""Adapter bundles: a folder that says what it is, travels without code, and refuses the wrong base weights.

`card.json` describes it, `peft/` holds the peft library's own two files for the kinds it has, `rest.safetensors` the
tuned decoder, norms and our own adapters, and the relation module for transfer to other runs, `routing.safetensors`
what the router must know to choose it (infosam.routing).
"""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.checkpoint import save_json, save_tensors
from infosam.config import ModelConfig, RunConfig, validate
from infosam.data.transforms import PIXEL_MEAN, PIXEL_STD
from infosam.errors import BundleError, BundleMismatch
from infosam.peft.inject import METHODS, inject
from infosam.protocols import PROTOCOLS
from infosam.routing.statistics import CARD_FIELD
from infosam.sam.weights import BaseSam
from infosam.student import RELATION_PREFIX, REST_FILE, build_student

if TYPE_CHECKING:
    from infosam.materials import Materials

FORMAT = 1
CARD_FILE, PEFT_FOLDER = "card.json", "peft"
PROMPT_PROTOCOL = (
    "box: first and last foreground column and row, both inside the object, in original pixels; "
    "no prompt: the image frame as box"
)
_PADDING = {"normalised": "zeros after normalisation", "raw": "zeros before normalisation"}
_REQUIRED = {"format": int, "base": dict, "config": dict, "files": dict, "trainable": list, "seed": int}


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are all there and unaltered."""

    path: Path
    card: dict[str, Any]

    @property
    def config(self) -> RunConfig:
        """The run that made it."""
        return validate(RunConfig, self.card["config"], f"{self.path / CARD_FILE}: config")

    def model(self, checkpoint: Path | None = None) -> ModelConfig:
        """The base it goes on; `checkpoint` says where those weights lie here, if not where they lay there."""
        model = self.config.model
        return model if checkpoint is None else model.model_copy(update={"checkpoint": checkpoint})


def export_bundle(checkpoint: Path, materials: Materials, out: Path, *, card: Mapping[str, Any]) -> Path:
    """Writes the bundle of a training checkpoint to `out`, completely or not at all, replacing what was there.

    `card` adds fields such as domain, metrics and provenance to the card. Raises BundleError for a broken checkpoint,
    or if `out` holds something that is no bundle."""
    _check_replaceable(out)
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        config = validate(RunConfig, state["config"], str(checkpoint / "state.json"))
        student = build_student(materials.base, config)
        student.load_tensors(load_file(checkpoint / "student.safetensors"))
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{checkpoint}: not a complete checkpoint of this base: {error}") from error
    staging = _staging(out)
    files = METHODS[config.peft.kind].files
    rest = student.tensors()
    if files is not None:
        files.save(student.sam, staging / PEFT_FOLDER)
        rest = {name: tensor for name, tensor in rest.items() if not files.owns(name)}
    save_tensors(rest, staging / REST_FILE)
    statistics = materials.routing
    routing = {} if statistics is None else {CARD_FIELD: statistics.save(staging)}
    content = _card(config, state, student.trainable, materials, staging)
    save_json(content | routing | dict(card), staging / CARD_FILE)
    return _place(staging, out)


def copy_bundle(source: Path, out: Path) -> Path:
    """Copies a bundle to `out`, completely or not at all, replacing a bundle that was there; nothing that its card does
    not name comes along. Raises BundleError for a broken bundle, or if `out` holds something that is no bundle."""
    _check_replaceable(out)
    bundle = read_bundle(source)
    staging = _staging(out)
    for name in (CARD_FILE, *bundle.card["files"]):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, staging / name)
    read_bundle(staging)
    return _place(staging, out)


def read_bundle(path: Path) -> Bundle:
    """A bundle from its folder. Raises BundleError for a missing file, a broken card, or a file with another digest."""
    card_file = path / CARD_FILE
    if not card_file.is_file():
        raise BundleError(f"{path}: not an adapter bundle, it has no {CARD_FILE}")
    try:
        card = json.loads(card_file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{card_file}: not valid JSON ({error}); fetch the bundle again") from error
    if not isinstance(card, dict):
        raise BundleError(f"{card_file}: expected a mapping, found {type(card).__name__}; fetch the bundle again")
    if card.get("format", FORMAT) != FORMAT:
        raise BundleError(f"{card_file}: format {card['format']}, this version of infosam reads format {FORMAT}")
    lacking = [key for key, kind in _REQUIRED.items() if not isinstance(card.get(key), kind)]
    if lacking:
        raise BundleError(f"{card_file}: lacks {', '.join(lacking)}; fetch the bundle again")
    check_names(card["files"], card_file)
    for name, digest in card["files"].items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"{path}: {name} is missing; fetch the bundle again")
        if _digest(file) != digest:
            raise BundleError(f"{file}: damaged, its SHA-256 is not the one in {CARD_FILE}; fetch the bundle again")
    return Bundle(path=path, card=card)


def check_names(names: Iterable[str], card_file: Path) -> None:
    """Raises BundleError unless every file that a card names lies in its folder and is of a kind that runs no code."""
    for name in names:
        file = PurePosixPath(name)
        if file.is_absolute() or ".." in file.parts or "\\" in name or file.suffix not in (".json", ".safetensors"):
            raise BundleError(f"{card_file}: names {name!r}; a bundle is JSON and safetensors in its own folder")


def restore(bundle: Bundle, base: BaseSam) -> Sam:
    """A SAM with the bundle's adapter on a copy of `base`, in eval mode.

    Raises BundleMismatch if the bundle was trained on other base weights, BundleError if its tensors do not fit."""
    check_base(bundle, base)
    sam = copy.deepcopy(base.sam)
    fill(sam, bundle, inject(sam, bundle.config.peft, seed=0))
    return sam.requires_grad_(False).eval()


def check_base(bundle: Bundle, base: BaseSam) -> None:
    """Raises BundleMismatch if the bundle was trained on other base weights."""
    wanted = bundle.card["base"]
    if wanted.get("sha256") != base.sha256:
        raise BundleMismatch(
            f"{bundle.path}: trained on {wanted.get('name')} with SHA-256 {str(wanted.get('sha256'))[:12]}..., not on "
            f"{base.spec.name} with {base.sha256[:12]}...; its masks would be wrong"
        )


def fill(sam: Sam, bundle: Bundle, trainable: Sequence[str]) -> None:
    """Writes the bundle's tensors over the parameters `trainable`, as `inject` gave them for the bundle's kind.

    Raises BundleError if they do not fit."""
    files = METHODS[bundle.config.peft.kind].files
    try:
        rest = load_file(bundle.path / REST_FILE)
        if files is not None:
            files.load(sam, bundle.path / PEFT_FOLDER)
            trainable = [name for name in trainable if not files.owns(name)]
        _fill(sam, {name: tensor for name, tensor in rest.items() if not name.startswith(RELATION_PREFIX)}, trainable)
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise BundleError(f"{bundle.path}: {error}") from error


def _check_replaceable(out: Path) -> None:
    if out.exists() and not (out.is_dir() and ((out / CARD_FILE).is_file() or not any(out.iterdir()))):
        raise BundleError(f"{out}: is not empty and no adapter bundle, so it is left alone; choose another folder")


def _staging(out: Path) -> Path:
    """A new folder beside `out` to write in; what an earlier try left there is removed."""
    staging = out.with_name(out.name + ".part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def _place(staging: Path, out: Path) -> Path:
    if out.exists():
        shutil.rmtree(out)
    staging.replace(out)
    return out


def _fill(sam: Sam, tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    if set(tensors) != set(names):
        odd = sorted(set(tensors) ^ set(names))
        raise ValueError(f"{REST_FILE} does not fit its configuration; {len(odd)} tensors differ, first: {odd[:3]}")
    sam.load_state_dict(dict(tensors), strict=False)


def _card(
    config: RunConfig, state: Mapping[str, Any], trainable: list[str], materials: Materials, staging: Path
) -> dict[str, Any]:
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    base = materials.base
    return {
        "format": FORMAT,
        "base": {"name": base.spec.name, "sha256": base.sha256, "image_px": base.spec.image_px},
        "config": config.model_dump(mode="json"),
        "trainable": trainable,
        "epoch": state["epoch"],
        "seed": config.train.seed,
        "metrics": {"adapter": state["values"], "zero_shot": materials.zero_shot, "trivial": materials.trivial},
        "data_digest": materials.data_digest,
        "preprocessing": {
            "protocol": config.model.protocol, "channels": PROTOCOLS[config.model.protocol].channels,
            "longest_side_px": base.spec.image_px, "pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD,
            "padding": f"right and bottom, {_PADDING[PROTOCOLS[config.model.protocol].padding]}",
        },
        "prompt_protocol": PROMPT_PROTOCOL,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "peft", "segment-anything", "safetensors")},
        },
        "files": {str(path.relative_to(staging)): _digest(path) for path in files},
    }  # fmt: skip


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
