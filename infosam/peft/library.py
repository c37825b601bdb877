"""Kinds that the peft library has: put in, written to its own two files, read back, and folded into SAM's weights.

It brings transformers, whose import takes seconds, so it is imported where one of its kinds is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from segment_anything.modeling import Sam

from infosam.checkpoint import save_tensors

if TYPE_CHECKING:
    import peft

_PREFIX = "base_model.model."  # how peft's own files name the wrapped model
_OWN_NAMES = (".lora_", ".hada_", ".ia3_")  # of the parameters that LoRA and its kin, LoHa and (IA)^3 add

LINEARS: Mapping[str, tuple[str, ...]] = {"qkv": ("attn.qkv",), "proj": ("attn.proj",), "mlp": ("mlp.lin1", "mlp.lin2")}
"""Modules of a block that a target of a configuration means."""


def linears(sam: Sam, first_block: int, names: Iterable[str]) -> list[str]:
    """Paths below the image encoder of the modules called `names` in every block from `first_block` on."""
    blocks = range(first_block, len(sam.image_encoder.blocks))
    return [f"blocks.{index}.{name}" for index in blocks for name in names]


def inject(sam: Sam, settings: peft.PeftConfig, modules: Iterable[str], parameters: str) -> list[str]:
    """Wraps `modules` of the image encoder in place; returns patterns of the parameters that train, those of each
    module whose names begin with `parameters`."""
    import peft

    peft.inject_adapter_in_model(settings, sam.image_encoder)
    return [f"image_encoder.{module}.{parameters}*" for module in modules]


def owns(name: str) -> bool:
    """Whether peft's own file holds the parameter of this name."""
    return any(part in name for part in _OWN_NAMES)


def save(sam: Sam, folder: Path) -> None:
    """Writes peft's two files, which `peft.PeftModel.from_pretrained(sam.image_encoder, folder)` loads."""
    import peft

    folder.mkdir(parents=True, exist_ok=True)
    settings = sam.image_encoder.peft_config["default"]
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    tensors = peft.get_peft_model_state_dict(sam.image_encoder)
    save_tensors({_PREFIX + name: tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def load(sam: Sam, folder: Path) -> None:
    """Fills injected updates from peft's files. Raises ValueError where the files do not fit."""
    import peft

    tensors = {
        name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    own = peft.get_peft_model_state_dict(sam.image_encoder).keys()
    missing, unexpected = sorted(own - tensors.keys()), sorted(tensors.keys() - own)
    if missing or unexpected:
        raise ValueError(f"{folder}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    peft.set_peft_model_state_dict(sam.image_encoder, tensors)


def merge(sam: Sam) -> None:
    """Folds every update into the weight it adapts, in place; what remains is a SAM of the package's own modules."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    encoder = sam.image_encoder
    wrapped: list[tuple[str, Any]] = [
        (path, module) for path, module in encoder.named_modules() if isinstance(module, BaseTunerLayer)
    ]
    for path, module in wrapped:
        module.merge()
        parent, _, name = path.rpartition(".")
        setattr(encoder.get_submodule(parent), name, module.get_base_layer())
    del encoder.peft_config
