"""`infosam cluster predict`: a folder through Ray Data, cut off and gone on with."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.adapters import Adapters, find_adapters, named_bundles
from cluster.batch import BatchRequest, Worker, segment_all
from infosam.data.store import open_dataset
from infosam.errors import DataError, UserError
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt

BOX = (20.0, 20.0, 90.0, 80.0)


@pytest.fixture
def pictures(spores: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.png", "below/c.png")):
        Image.fromarray(open_dataset(spores).read("test", index).image).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("none either")
    return folder


@pytest.fixture
def adapters(make_bundle: Callable[[int], Path]) -> Adapters:
    return find_adapters(named_bundles([f"spores={make_bundle(0)}"]), checkpoint=None, device="cpu")


@pytest.mark.slow
def test_a_folder_is_segmented_and_gone_on_with(
    ray_here: None, pictures: Path, adapters: Adapters, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    request = BatchRequest(
        source=str(pictures), out=str(out), adapters=adapters, domain="spores", prompts={"a.png": ImagePrompt(box=BOX)}
    )
    told: list[tuple[int, int]] = []
    counts = segment_all(request, lambda done, total: told.append((done, total)))
    assert counts == {"spores": 3, "problem": 1, "before": 0}
    assert told[-1] == (4, 4)
    predictor = Predictor(adapters.bundles["spores"], device="cpu")
    for name, prompt in (("a", ImagePrompt(box=BOX)), ("b", None), ("below/c", None)):
        rgb = np.asarray(Image.open(pictures / f"{name}.png"))
        mask = np.asarray(Image.open(out / "masks" / f"{name}.png")) > 0
        assert np.array_equal(mask, predictor.predict(rgb, prompt))
    with (out / "summary.csv").open(newline="") as stream:
        rows = {row["image"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"a.png", "b.png", "below/c.png", "broken.jpg"}
    assert "cannot be read" in rows["broken.jpg"]["problem"]
    assert not list(out.rglob("*.part"))

    (out / "masks" / "b.png").unlink()
    assert segment_all(request, lambda done, total: None) == {"spores": 1, "problem": 1, "before": 2}


def test_plain_sam_and_unknown_domains(pictures: Path, adapters: Adapters, tmp_path: Path) -> None:
    import pandas as pd

    names = pd.DataFrame({"image": ["a.png", "b.png"]})
    plain = Worker(BatchRequest(source=str(pictures), out=str(tmp_path / "plain"), adapters=adapters, domain="none"))
    assert list(plain(names)["domain"]) == ["", ""]
    lost = Worker(BatchRequest(source=str(pictures), out=str(tmp_path / "lost"), adapters=adapters, domain="polyp"))
    assert all("polyp" in text for text in lost(names)["problem"])


@pytest.mark.parametrize("names", [[], ["a.png", "a.jpg"]])
def test_nothing_to_do_and_masks_of_one_name_are_refused(names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"no images in|several images"):
        segment_all(BatchRequest(source=str(folder), out=str(tmp_path), adapters=Adapters()), lambda *_: None)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    request = BatchRequest(source=str(tmp_path / "gone"), out=str(tmp_path), adapters=Adapters())
    with pytest.raises(UserError, match="gone"):
        segment_all(request, lambda *_: None)
