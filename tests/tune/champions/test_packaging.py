"""A version as an MLflow model: what it says, and that it predicts what `infosam predict` does."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from rich.console import Console

from infosam.bundle import read_bundle
from infosam.data.store import open_dataset
from infosam.errors import DataError
from infosam.predict import Predictor
from infosam.prediction_run import PredictionRequest, run_prediction
from infosam.prompt_files import ImagePrompt
from infosam.resolvers import resolve_domain
from tune.champions.contest import Contest
from tune.champions.packaging import MODEL_CODE, describe_card, save_model
from tune.champions.promotion import Challenger, promote

BOX = (5, 6, 40, 41)

LOADED_ALONE = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/infosam-disc@champion", model_config={"device": "cpu"})
pictures = sorted(sys.argv[2:])
rows = [{"image": open(picture, "rb").read()} for picture in pictures]
rows[0] |= dict(zip(("x0", "y0", "x1", "y1"), (5.0, 6.0, 40.0, 41.0)))
answer = model.predict(pd.DataFrame(rows))
for picture, mask in zip(pictures, answer["mask"]):
    open(picture + ".mask", "wb").write(mask)
assert not {"ray", "tune", "optuna"} & set(sys.modules)
print(json.dumps(list(answer["score"])))
"""


@pytest.mark.slow
def test_mlflow_alone_predicts_what_infosam_predict_does(
    store: str, offer: Callable[..., Challenger], trained: Path, dataset: Path, tmp_path: Path
) -> None:
    challenger = replace(offer(0.9), domain="disc", bundle=trained)
    assert promote(store, challenger, lambda bundle: pytest.fail("there is no champion yet")).promoted
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    samples = open_dataset(dataset)
    for index in range(2):
        Image.fromarray(samples.read("test", index).image).save(pictures / f"{index}.png")
    (tmp_path / "prompts.json").write_text(json.dumps({"0.png": {"box": BOX}}))
    request = PredictionRequest(
        bundles={"disc": resolve_domain("disc")},
        domain="disc",
        images=[pictures],
        out=tmp_path / "out",
        prompts=tmp_path / "prompts.json",
        device="cpu",
    )
    run_prediction(request, Console(file=io.StringIO()))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED_ALONE, store, *map(str, pictures.glob("*.png"))],
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for index in range(2):
        theirs = np.asarray(Image.open(pictures / f"{index}.png.mask"))
        ours = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{index}.png"))
        assert ours.any()
        np.testing.assert_array_equal(theirs, ours)
    assert all(0.5 < score <= 1 for score in json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MLflow model of the bundle."""
    out = tmp_path_factory.mktemp("packed") / "model"
    save_model(trained, read_bundle(trained).card, out)
    return out


def test_it_is_code_and_a_bundle_without_pickle(model: Path) -> None:
    suffixes = {path.suffix for path in model.rglob("*") if path.is_file()}
    assert suffixes == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    assert (model / MODEL_CODE.name).read_text() == MODEL_CODE.read_text()
    read_bundle(model / "artifacts" / "bundle")


def test_its_description_names_columns_and_no_place_of_this_machine(model: Path, tmp_path: Path) -> None:
    text = (model / "MLmodel").read_text()
    assert str(tmp_path.parents[1]) not in text
    assert str(MODEL_CODE.parent) not in text
    described = yaml.safe_load(text)
    inputs, outputs = (json.loads(described["signature"][side]) for side in ("inputs", "outputs"))
    assert [(one["name"], one["required"]) for one in inputs] == [
        ("image", True), ("x0", False), ("y0", False), ("x1", False), ("y1", False),
        ("points", False),
    ]  # fmt: skip
    assert [one["name"] for one in outputs] == ["mask", "score"]
    assert described["metadata"]["domain"] == "disc"
    requirements = (model / "requirements.txt").read_text()
    assert "infosam==" in requirements
    assert "mlflow==" in requirements


def test_its_example_is_a_picture_with_a_box(model: Path) -> None:
    example = json.loads((model / "serving_input_example.json").read_text())["dataframe_split"]
    assert example["columns"] == ["image", "x0", "y0", "x1", "y1"]
    ((picture, *box),) = example["data"]
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (96, 96)
    assert all(0 <= side < 96 for side in box)


@pytest.fixture(scope="module")
def predict(model: Path) -> Callable[..., pd.DataFrame]:
    """The loaded model, for one row."""
    loaded = mlflow.pyfunc.load_model(str(model), model_config={"device": "cpu"})
    return lambda **row: loaded.predict(pd.DataFrame([row]))


@pytest.fixture(scope="module")
def picture() -> bytes:
    """30 x 20 px of black as PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


class TestRows:
    def test_no_box_is_a_box_of_nothing(self, predict: Callable[..., pd.DataFrame], picture: bytes) -> None:
        unknown = dict.fromkeys(("x0", "y0", "x1", "y1"), float("nan"))
        (without,), (with_nan,) = (predict(image=picture, **box)["mask"] for box in ({}, unknown))
        assert without == with_nan
        assert Image.open(io.BytesIO(without)).size == (30, 20)

    def test_points(self, predict: Callable[..., pd.DataFrame], picture: bytes, trained: Path) -> None:
        rgb, prompt = np.zeros((20, 30, 3), np.uint8), ImagePrompt(points=((9, 9, 1), (25, 3, 0)))
        (mask,) = predict(image=picture, points="[[9, 9, 1], [25, 3, 0]]")["mask"]
        expected = Predictor(trained, device="cpu").predict(rgb, prompt)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(mask))) > 0, expected)
        with pytest.raises(DataError, match="row 0: points: not valid JSON"):
            predict(image=picture, points="9, 9, 1")

    def test_bytes_that_are_no_picture(self, predict: Callable[..., pd.DataFrame]) -> None:
        with pytest.raises(DataError, match="row 0: image: cannot be read as an image"):
            predict(image=b"not a picture")

    @pytest.mark.parametrize(
        ("box", "words"),
        [
            ((5.0, 5.0, 2.0, 9.0), "row 0: a box is x0, y0, x1, y1 with x1 >= x0"),
            ((5.0, 5.0, 9.0, None), "row 0: a box is x0, y0, x1, y1"),
            ((5.0, 5.0, 90.0, 9.0), r"row 0: prompt: \(90, 9\) lies outside the image of 30 x 20 px"),
        ],
    )
    def test_boxes_that_are_none(
        self, predict: Callable[..., pd.DataFrame], picture: bytes, box: tuple[float, ...], words: str
    ) -> None:
        with pytest.raises(DataError, match=words):
            predict(image=picture, **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)))


def test_the_card_in_words(trained: Path) -> None:
    text = describe_card(read_bundle(trained).card)
    assert "Adapter of InfoSAM for the domain **disc**: lora on vit_nano at 64 px." in text
    assert "| box | 0." in text


def test_the_contest_scores_the_bundle_as_its_trial_did(trained: Path, dataset: Path) -> None:
    metrics = read_bundle(trained).card["metrics"]
    for prompt in ("box", "none"):
        contest = Contest(data=dataset, prompt=prompt, device="cpu")
        evidence = contest.evidence(trained)
        key = f"val/{prompt}/dice"
        assert evidence.adapter.shape == (3,)
        assert evidence.adapter.mean() == pytest.approx(metrics["adapter"][key], abs=1e-5)
        assert evidence.zero_shot.mean() == pytest.approx(metrics["zero_shot"][key], abs=1e-5)
        assert evidence.trivial.mean() == pytest.approx(metrics["trivial"][key], abs=1e-5)
        np.testing.assert_allclose(contest.rescore(trained), evidence.adapter, atol=1e-6)
