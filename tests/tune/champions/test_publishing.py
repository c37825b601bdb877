"""All champions as one MLflow model, which chooses by itself."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from infosam.bundle import export_bundle
from infosam.config import RunConfig, validate
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import UnknownDomain, UserError
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt
from infosam.synthetic import write_demo_domain
from infosam.training import load_materials, train
from tune.champions import pool, resolve
from tune.champions.promotion import Challenger, Rescore, promote
from tune.champions.publishing import publish
from tune.champions.registry import CHAMPION, open_registry

Offer = Callable[..., Challenger]

LOADED_ALONE = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/infosam-auto@champion", model_config={"device": "cpu"})
image, noise = (open(file, "rb").read() for file in sys.argv[2:])
asked = [(image, "disc", ""), (image, "none", ""), (image, "auto", ""), (image, None, None), (noise, "auto", ""),
         (image, "disc", "[[30, 20, 1], [2, 2, 0]]")]
answer = model.predict(pd.DataFrame(asked, columns=["image", "domain", "points"]))
for number, mask in enumerate(answer["mask"]):
    open(f"{sys.argv[2]}.{number}", "wb").write(mask)
try:
    model.predict(pd.DataFrame([{"image": image}, {"image": b"no picture"}]))
except Exception as error:
    message = str(error)
assert not {"ray", "tune", "optuna"} & set(sys.modules)
print(json.dumps([list(answer["domain"]), message]))
"""


def test_without_champions_there_is_nothing_to_publish(store: str) -> None:
    with pytest.raises(UserError, match="run `infosam sweep`"):
        publish(store)
    with pytest.raises(UnknownDomain, match="no domain has a champion"):
        pool(store)


def test_champions_on_different_bases_are_refused(store: str, offer: Offer, rescore: Rescore) -> None:
    promote(store, offer(0.8), rescore)
    other = {"name": "vit_b", "sha256": "c" * 64, "image_px": 1024}
    promote(store, replace(offer(0.8, base=other), domain="road"), rescore)
    with pytest.raises(UserError, match=r"polyp on vit_nano at 64 px; road on vit_b at 1024 px"):
        publish(store)


@pytest.fixture
def spores(tmp_path: Path) -> tuple[Path, NDArray[np.uint8]]:
    """A bundle that can be chosen, and a picture of its domain."""
    pictures = write_demo_domain(tmp_path / "spores", train=24, val=3, test=3, image_px=64)
    import_dataset(pictures, domain="spores", out=tmp_path / "spores-data")
    settings = {"model": {"image_px": 64}, "train": {"epochs": 1, "batch_size": 4, "device": "cpu"}}
    config = validate(RunConfig, settings, "test")
    materials = load_materials(config.model, tmp_path / "spores-data", device="cpu", baselines=False)
    (report,) = train(config, materials, checkpoint_dir=tmp_path / "checkpoints")
    assert report.checkpoint is not None
    bundle = export_bundle(report.checkpoint, materials, tmp_path / "spores-bundle", card={"domain": "spores"})
    return bundle, open_dataset(tmp_path / "spores-data").read("test", 0).image


@pytest.mark.slow
def test_mlflow_alone_chooses_as_a_pool_does(
    store: str, offer: Offer, rescore: Rescore, trained: Path, spores: tuple[Path, NDArray[np.uint8]], tmp_path: Path
) -> None:
    bundle, rgb = spores
    promote(store, replace(offer(0.9), domain="disc", bundle=trained), rescore)
    promote(store, replace(offer(0.9), domain="spores", bundle=bundle), rescore)
    promote(store, offer(0.8), rescore)
    broken = resolve("polyp")
    assert broken is not None
    (broken / "rest.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="polyp version 1 cannot be used"):
        publish(store, ["polyp"])
    made, included, problems = publish(store)
    assert [version.domain for version in included] == ["disc", "spores"]
    assert len(problems) == 1
    assert problems[0].startswith("polyp is left out: ")
    assert made.tags["version.disc"] == "1"
    with open_registry(store) as registry:
        assert registry.domains() == ["disc", "polyp", "spores"]
        assert registry.client.get_model_version_by_alias("infosam-auto", CHAMPION).version == int(made.number)
    check_the_pool(store, rgb)
    picture, noise = tmp_path / "picture.png", tmp_path / "noise.png"
    Image.fromarray(rgb).save(picture)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(noise)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED_ALONE, store, str(picture), str(noise)],
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    domains, message = json.loads(done.stdout.strip().splitlines()[-1])
    assert domains == ["disc", "", "spores", "spores", "", "disc"]
    assert "row 1" in message
    masks = [np.asarray(Image.open(io.BytesIO(Path(f"{picture}.{n}").read_bytes()))) > 0 for n in range(6)]
    points = ImagePrompt(points=((30, 20, 1), (2, 2, 0)))
    for number, (made_by, prompt) in {
        0: (trained, None),
        2: (bundle, None),
        3: (bundle, None),
        5: (trained, points),
    }.items():
        odds = Predictor(made_by, device="cpu").logits(rgb, prompt)
        assert ((odds > 0) == masks[number])[np.abs(odds) > 1e-3].all(), number


def check_the_pool(store: str, rgb: NDArray[np.uint8]) -> None:
    """The same champions for Python, in one call."""
    gathered = pool(store, device="cpu")
    left_out, by_name = gathered.problems
    assert left_out.startswith("polyp is left out: ")
    assert by_name.startswith("disc is never chosen automatically")
    (found,) = gathered.pool.predict_batch([rgb])
    assert (found.domain, found.version) == ("spores", "1")
