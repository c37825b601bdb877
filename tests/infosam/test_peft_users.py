"""Users of peft load a bundle's LoRA by the lines of the documentation, without any module of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from infosam.bundle import export_bundle, read_bundle, restore
from infosam.config import ModelConfig, RunConfig, validate
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.weights import load_base, weights_path
from infosam.training import load_materials, train

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "champions.md")
IMPORT = "from peft import PeftModel"


def snippets(word: str) -> list[str]:
    """The Python of our pages that loads through peft and holds this word."""
    blocks = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    found = [block for block in blocks if IMPORT in block and word in block]
    assert found
    return list(dict.fromkeys(found))


def run_alone(program: str, folder: Path) -> None:
    """Runs it in `folder` by an interpreter that loads nothing of ours."""
    guard = "\nimport sys\nassert not {'infosam', 'tune', 'ray', 'mlflow'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program + guard], cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def bundle(spores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA after one epoch on vit_nano's own canvas."""
    folder = tmp_path_factory.mktemp("nano")
    config = validate(
        RunConfig,
        {"peft": {"kind": "lora", "rank": 2}, "train": {"epochs": 1, "batch_size": 7, "device": "cpu"}},
        "test",
    )
    materials = load_materials(config.model, spores, device="cpu", baselines=False)
    (report,) = train(config, materials, checkpoint_dir=folder / "checkpoints")
    assert report.checkpoint is not None
    return export_bundle(report.checkpoint, materials, folder / "bundle", card={})


@pytest.mark.slow
def test_vit_nano_gives_the_same_features(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    shutil.copyfile(weights_path(ModelConfig()), tmp_path / "vit_nano-1.safetensors")
    image = torch.rand(1, 3, 192, 192)
    save_file({"image": image}, tmp_path / "image.safetensors")
    use = """
image = load_file("image.safetensors")["image"]
with torch.no_grad():
    features = encoder.eval()(image)
from safetensors.torch import save_file
save_file({"features": features.contiguous()}, "features.safetensors")
"""
    for snippet in snippets("vit_nano-1.safetensors"):
        run_alone(snippet + use, tmp_path)
        theirs = load_file(tmp_path / "features.safetensors")["features"]
        base = load_base(ModelConfig())
        with torch.no_grad():
            ours = restore(read_bundle(bundle), base).image_encoder(image)
            plain = base.sam.image_encoder(image)
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)
        assert (theirs - plain).abs().max() > 1e-3  # the update does something


@pytest.mark.slow
def test_vit_b_takes_lora_and_decoder(tmp_path: Path) -> None:
    """Random weights of the official shape: the lines run, and every tensor lands where it belongs."""
    sam = build_sam(architecture("vit_b"))
    torch.save(sam.state_dict(), tmp_path / "sam_vit_b_01ec64.pth")
    settings = peft.LoraConfig(r=2, target_modules=["blocks.0.attn.qkv"], init_lora_weights=False)
    model = peft.get_peft_model(sam.image_encoder, settings)
    model.save_pretrained(str(tmp_path / "bundle" / "peft"))
    layer = model.base_model.model.blocks[0].attn.qkv
    wanted = layer.base_layer.weight + layer.get_delta_weight("default")
    bias = sam.mask_decoder.iou_token.weight + 1
    rest = {"mask_decoder.iou_token.weight": bias.detach(), "relation.scale": torch.ones(1)}
    save_file(rest, tmp_path / "bundle" / "rest.safetensors")
    save_file({"qkv": wanted.detach(), "token": bias.detach()}, tmp_path / "wanted.safetensors")
    check = """
import torch
wanted = load_file("wanted.safetensors")
torch.testing.assert_close(sam.image_encoder.blocks[0].attn.qkv.weight.detach(), wanted["qkv"])
torch.testing.assert_close(sam.mask_decoder.iou_token.weight.detach(), wanted["token"])
"""
    for snippet in snippets("sam_vit_b_01ec64.pth"):
        run_alone(snippet + check, tmp_path)
