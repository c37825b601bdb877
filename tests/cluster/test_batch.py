"""`infosam cluster predict`: a folder or a bucket through Ray Data, cut off and gone on with."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from object_store import ObjectStore, object_store
from PIL import Image

from cluster.adapters import Adapters, find_adapters, named_bundles
from cluster.batch import BatchRequest, Worker, segment_all
from infosam.data.remote import file_system
from infosam.data.store import open_dataset
from infosam.errors import DataError, UserError
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt

BOX = (20.0, 20.0, 90.0, 80.0)
NAMES = ["a.png", "b.png", "below/a.png"]


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[ObjectStore]:
    """Before Ray, whose processes inherit where it is."""
    with object_store("lab") as store, pytest.MonkeyPatch.context() as patch:
        for name, text in store.environment.items():
            patch.setenv(name, text)
        yield store


@pytest.fixture
def pictures(spores: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for index, name in enumerate(NAMES):
        Image.fromarray(open_dataset(spores).read("test", index).image).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("none either")
    return folder


@pytest.fixture
def adapters(make_bundle: Callable[..., Path]) -> Adapters:
    return find_adapters(named_bundles([f"spores={make_bundle(0)}"]), checkpoint=None, device="cpu")


def segmented(request: BatchRequest) -> dict[str, int]:
    """With nothing to warn of."""
    return dict(segment_all(request, lambda done, total: None, pytest.fail))


def summary(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


def mask_at(path: Path) -> NDArray[np.bool_]:
    return np.asarray(Image.open(path)) > 0


@pytest.mark.slow
def test_a_folder_is_segmented_and_gone_on_with(
    ray_here: None, pictures: Path, adapters: Adapters, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prompts = {"below/a.png": ImagePrompt(box=BOX)}
    request = BatchRequest(source=str(pictures), out=str(out), adapters=adapters, domain="spores", prompts=prompts)
    told: list[tuple[int, int]] = []
    counts = segment_all(request, lambda done, total: told.append((done, total)), pytest.fail)
    assert counts == {"spores": 3, "problem": 1, "before": 0}
    assert told[-1] == (4, 4)
    predictor = Predictor(adapters.bundles["spores"], device="cpu")
    for name in NAMES:
        rgb = np.asarray(Image.open(pictures / name))
        assert np.array_equal(mask_at(out / "masks" / name), predictor.predict(rgb, prompts.get(name))), name
    first = summary(out)
    assert set(first) == {*NAMES, "broken.jpg"}
    assert {first[name]["reason"] for name in NAMES} == {"asked for"}
    assert "cannot be read" in first["broken.jpg"]["problem"]
    assert not list(out.rglob("*.part"))

    (out / "masks" / "b.png").unlink()
    lines = (out / "summary.csv").read_text().splitlines(keepends=True)
    (out / "summary.csv").write_text("".join(line for line in lines if not line.startswith("below")))
    assert segmented(request) == {"spores": 2, "problem": 1, "before": 1}
    assert summary(out) == first


@pytest.mark.slow
def test_a_bucket_whose_pictures_choose_for_themselves(
    ray_here: None, bucket: ObjectStore, own_pictures: Callable[..., Any], make_bundle: Callable[..., Path]
) -> None:
    system, _ = file_system(bucket.uri("lab"))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    bundles = named_bundles([f"spores={make_bundle(0)}", f"negatives={make_bundle(0, 'negatives')}"])
    known = own_pictures(bundles)
    for name, rgb in {**known, "noise": noise}.items():
        content = io.BytesIO()
        Image.fromarray(rgb).save(content, format="PNG")
        with system.open_output_stream(f"lab/slides/{name}.png") as stream:
            stream.write(content.getvalue())
    adapters = find_adapters(bundles, checkpoint=None, device="cpu")
    request = BatchRequest(source=bucket.uri("lab/slides"), out=bucket.uri("lab/out"), adapters=adapters)
    assert segmented(request) == {"spores": 1, "negatives": 1, "": 1, "before": 0}
    with system.open_input_stream("lab/out/summary.csv") as stream:
        rows = {row["image"]: row for row in csv.DictReader(io.StringIO(bytes(stream.read()).decode()))}
    assert {name: row["domain"] for name, row in rows.items()} == {
        "spores.png": "spores", "negatives.png": "negatives", "noise.png": "",
    }  # fmt: skip
    assert "like no domain here" in rows["noise.png"]["reason"]
    for name, rgb in known.items():
        with system.open_input_stream(f"lab/out/masks/{name}.png") as stream:
            mask = np.asarray(Image.open(io.BytesIO(bytes(stream.read())))) > 0
        assert (mask == Predictor(bundles[name], device="cpu").predict(rgb)).mean() > 0.999
    assert segmented(request) == {"before": 3}


@pytest.mark.slow
def test_a_machine_without_the_registry_stops_the_run(ray_here: None, pictures: Path, tmp_path: Path) -> None:
    """And does not give everything to plain SAM."""
    away = Adapters(tracking_uri=f"sqlite:///{tmp_path}/on-another-machine.db", device="cpu")
    request = BatchRequest(source=str(pictures), out=str(tmp_path / "out"), adapters=away)
    with pytest.raises(UserError, match=r"registry sqlite:.* is not on this machine"):
        segmented(request)
    assert not (tmp_path / "out").exists()


def test_plain_sam_is_only_what_was_asked_for(pictures: Path, adapters: Adapters, tmp_path: Path) -> None:
    names = pd.DataFrame({"image": NAMES[:2]})
    plain = Worker(BatchRequest(source=str(pictures), out=str(tmp_path / "plain"), adapters=adapters, domain="none"))
    assert list(plain(names)["domain"]) == ["", ""]
    for domain, others in (("polyp", adapters), ("auto", Adapters(device="cpu"))):
        request = BatchRequest(source=str(pictures), out=str(tmp_path / "lost"), adapters=others, domain=domain)
        rows = Worker(request)(names)
        assert all(("polyp" if domain == "polyp" else "no adapter here") in text for text in rows["refusal"])
        assert not (tmp_path / "lost").exists()


@pytest.mark.parametrize("name", ["elsewhere.png", "above/a.png"])
def test_a_prompt_of_no_picture_is_refused(pictures: Path, tmp_path: Path, name: str) -> None:
    request = BatchRequest(
        source=str(pictures), out=str(tmp_path / "out"), adapters=Adapters(), prompts={name: ImagePrompt(box=BOX)},
        prompts_file="boxes.json",
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"boxes.json: has a prompt for '{name}', which is not among"):
        segmented(request)


@pytest.mark.parametrize("names", [[], ["a.png", "a.jpg"]])
def test_nothing_to_do_and_masks_of_one_name_are_refused(names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"no images in|several images"):
        segmented(BatchRequest(source=str(folder), out=str(tmp_path), adapters=Adapters()))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    request = BatchRequest(source=str(tmp_path / "gone"), out=str(tmp_path), adapters=Adapters())
    with pytest.raises(UserError, match="gone"):
        segmented(request)
