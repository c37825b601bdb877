"""One thread for torch in all tests of the method, and the tiny things that they share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from infosam.config import ModelConfig, RunConfig, validate
from infosam.data.store import import_dataset
from infosam.sam.weights import BaseSam, load_base
from infosam.synthetic import write_demo_domain
from infosam.training import Materials, load_materials

IMAGE_PX = 64


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Splitting operations this small over threads costs far more than it saves, on a busy machine fifty times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model() -> ModelConfig:
    """vit_nano on its smallest sensible canvas: 8 x 8 tokens."""
    return ModelConfig(name="vit_nano", image_px=IMAGE_PX)


@pytest.fixture(scope="session")
def tiny_base(tiny_model: ModelConfig) -> BaseSam:
    """Shared by all tests: read it, never change it."""
    return load_base(tiny_model)


@pytest.fixture(scope="session")
def spores_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, masks and CSVs of 7 + 3 + 3 procedural images."""
    return write_demo_domain(tmp_path_factory.mktemp("source") / "spores", train=7, val=3, test=3, image_px=IMAGE_PX)


@pytest.fixture(scope="session")
def spores(spores_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, imported."""
    out = tmp_path_factory.mktemp("imported") / "spores"
    import_dataset(spores_source, domain="spores", out=out)
    return out


@pytest.fixture(scope="session")
def materials(tiny_model: ModelConfig, spores: Path) -> Materials:
    """Shared by all tests, as by all trials of a sweep: no run may leave a trace on it."""
    return load_materials(tiny_model, spores, device="cpu")


@pytest.fixture(scope="session")
def configure() -> Any:
    """Makes a configuration of two tiny epochs of InfoSAM with LoRA; configure(train={"seed": 1}) changes a setting."""
    return configured


def configured(**groups: dict[str, Any]) -> RunConfig:
    settings: dict[str, dict[str, Any]] = {
        "model": {"image_px": IMAGE_PX},
        "peft": {"kind": "lora", "rank": 2},
        "train": {"epochs": 2, "batch_size": 2, "device": "cpu", "precision": "float32"},  # the same on any CPU
    }
    for name, changes in groups.items():
        own = settings.get(name, {})
        same_kind = changes.get("kind", own.get("kind")) == own.get("kind")
        settings[name] = {**own, **changes} if same_kind else dict(changes)
    return validate(RunConfig, settings, "test")
