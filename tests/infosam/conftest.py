"""One thread for torch in all tests of the method, and the tiny things that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from infosam.bundle import export_bundle
from infosam.config import ModelConfig, RunConfig, validate
from infosam.data.store import import_dataset
from infosam.peft.config import LoraConfig, PeftConfig
from infosam.run_state import RunState, save_epoch
from infosam.sam.weights import BaseSam, load_base
from infosam.student import build_student
from infosam.synthetic import write_demo_domain
from infosam.training import Materials, load_materials, make_optimizer

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


# ------------------------------------------------------------------------------ bundles, and domains to tell apart

MakeBundle = Callable[..., Path]
PAINTED: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "spores": lambda rgb: rgb,
    "negative": lambda rgb: 255 - rgb,
    "violet": lambda rgb: np.roll(rgb, 1, axis=2) // 2,
}


@pytest.fixture(scope="session")
def domains(
    materials: Materials, tiny_model: ModelConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Materials]:
    """Three domains of 20 + 3 + 4 pictures: spores, their negative, and others in dark violet."""
    found = {}
    for seed, (name, painted) in enumerate(PAINTED.items()):
        folder = tmp_path_factory.mktemp("domains") / name
        write_demo_domain(folder, seed=seed, train=20, val=3, test=4, image_px=64)
        for file in sorted((folder / "images").iterdir()):
            with Image.open(file) as picture:
                rgb = np.array(picture)
            Image.fromarray(painted(rgb)).save(file)
        out = folder.with_name(f"{name}-imported")
        import_dataset(folder, domain=name, out=out)
        found[name] = load_materials(tiny_model, out, device="cpu", baselines=False, like=materials)
    return found


@pytest.fixture(scope="session")
def routed(domains: dict[str, Materials], make_bundle: MakeBundle) -> dict[str, Path]:
    """A bundle of each of them, with statistics."""
    return {
        name: make_bundle(LoraConfig(rank=2, first_block=3), seed=seed, domain=name, of=of)
        for seed, (name, of) in enumerate(domains.items())
    }


@pytest.fixture(scope="session")
def unseen(domains: dict[str, Materials]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Unseen pictures with their domains."""
    stores = {name: of.train_set.store for name, of in domains.items()}
    return [
        (name, store.read("test", row).image) for name, store in stores.items() for row in range(store.rows("test"))
    ]


@pytest.fixture(scope="session")
def make_bundle(
    materials: Materials, configure: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> MakeBundle:
    """Writes a bundle of a kind whose every trained weight was moved at random by `seed`."""

    def make(
        peft: PeftConfig, *, seed: int = 0, domain: str = "spores", protocol: str = "strict", of: Materials = materials
    ) -> Path:
        folder = tmp_path_factory.mktemp("bundles")
        config = configure(peft=peft.model_dump(mode="json"), model={"protocol": protocol})
        student = build_student(of.base, config)
        optimizer = make_optimizer(student, config.optim)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in student.tensors().values():
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
        state = RunState().after_epoch({"val/dice": 0.5})
        checkpoint = save_epoch(folder, config, state, student, optimizer)
        return export_bundle(checkpoint, of, folder / "bundle", card={"domain": domain})

    return make
