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
from PIL import Image

from infosam.data.store import open_dataset
from infosam.errors import UserError
from infosam.predict import Predictor
from tune.champions.promotion import Challenger, Rescore, promote
from tune.champions.publishing import publish
from tune.champions.registry import CHAMPION, open_registry

Offer = Callable[..., Challenger]

LOADED_ALONE = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/infosam-auto@champion", model_config={"device": "cpu"})
image = open(sys.argv[2], "rb").read()
answer = model.predict(pd.DataFrame([{"image": image, "domain": name} for name in ("disc", "none", "auto", None)]))
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


def test_champions_on_different_bases_are_refused(store: str, offer: Offer, rescore: Rescore) -> None:
    promote(store, offer(0.8), rescore)
    other = {"name": "vit_b", "sha256": "c" * 64, "image_px": 1024}
    promote(store, replace(offer(0.8, base=other), domain="road"), rescore)
    with pytest.raises(UserError, match=r"polyp on vit_nano at 64 px; road on vit_b at 1024 px"):
        publish(store)


@pytest.mark.slow
def test_mlflow_alone_chooses_as_a_pool_does(
    store: str, offer: Offer, rescore: Rescore, trained: Path, dataset: Path, tmp_path: Path
) -> None:
    promote(store, replace(offer(0.9), domain="disc", bundle=trained), rescore)
    promote(store, offer(0.8), rescore)  # of no weights: left out by name
    made, included = publish(store, ["disc"])
    assert [version.domain for version in included] == ["disc"]
    assert made.tags["version.disc"] == "1"
    with open_registry(store) as registry:
        assert registry.domains() == ["disc", "polyp"]
        assert registry.client.get_model_version_by_alias("infosam-auto", CHAMPION).version == int(made.number)
    picture = tmp_path / "picture.png"
    rgb = open_dataset(dataset).read("test", 0).image
    Image.fromarray(rgb).save(picture)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED_ALONE, store, str(picture)],
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    domains, message = json.loads(done.stdout.strip().splitlines()[-1])
    assert domains[:2] == ["disc", ""]
    assert domains[2] == domains[3]
    assert "row 1" in message
    masks = [np.asarray(Image.open(io.BytesIO(Path(f"{picture}.{n}").read_bytes()))) > 0 for n in range(4)]
    assert np.array_equal(masks[0], Predictor(trained, device="cpu").predict(rgb))
    assert np.array_equal(masks[2], masks[3])
