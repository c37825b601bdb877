"""LoRA on the fused query-key-value projection of the image encoder (Hu et al. 2021), through the peft library.

SAM's qkv is one Linear, so a rank here is not comparable with LoRA on separate q and v.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
from safetensors.torch import load_file
from segment_anything.modeling import Sam

from infosam.checkpoint import save_tensors
from infosam.config import LoraConfig

_PREFIX = "base_model.model."  # how peft's own files name the wrapped model


def inject(sam: Sam, config: LoraConfig) -> list[str]:
    """Adds the updates in place; returns patterns of the parameters that train. The start point is SAM itself."""
    blocks = range(config.first_block, len(sam.image_encoder.blocks))
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.rank if config.alpha is None else config.alpha,  # type: ignore[arg-type]
        target_modules=[f"blocks.{index}.attn.qkv" for index in blocks],
        bias="none",
    )
    peft.inject_adapter_in_model(settings, sam.image_encoder)
    return ["image_encoder.blocks.*.attn.qkv.lora_*"]


def save(sam: Sam, folder: Path) -> None:
    """Writes peft's two files, which `peft.PeftModel.from_pretrained(sam.image_encoder, folder)` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = sam.image_encoder.peft_config["default"]
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    tensors = peft.get_peft_model_state_dict(sam.image_encoder)
    save_tensors({_PREFIX + name: tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def load(sam: Sam, folder: Path) -> None:
    """Fills injected updates from peft's files. Raises ValueError where the files do not fit."""
    tensors = {
        name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    result: Any = peft.set_peft_model_state_dict(sam.image_encoder, tensors)
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise ValueError(f"{folder}: missing {missing[:3]}, unexpected {result.unexpected_keys[:3]}")
