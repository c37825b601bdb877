"""`infosam cluster import`: the same data set as `infosam data import` makes, opened by Ray Data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from cluster.cli import register
from cluster.importing import ClusterOpener
from infosam.data.card import read_card
from infosam.data.formats.shelf import Shelf
from infosam.data.importing import import_dataset
from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.data.store import open_dataset
from infosam.errors import DataError
from infosam.synthetic import write_demo_domain

pytestmark = pytest.mark.slow
OPENER = ClusterOpener(workers=1, cpus_per_worker=0.5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_domain(tmp_path_factory.mktemp("pictures"), seed=0, train=70, val=5, test=5)


def rows_of(folder: Path) -> list[tuple[str, bytes, bytes]]:
    store = open_dataset(folder)
    samples = [store.read(split, index) for split in ("train", "val", "test") for index in range(store.rows(split))]
    return [(sample.id, sample.image.tobytes(), sample.mask.tobytes()) for sample in samples]


def test_it_is_the_data_set_of_a_local_import(ray_here: None, pictures: Path, tmp_path: Path) -> None:
    """More pairs than one block, so that their order is not one of chance."""
    told: list[tuple[int, int]] = []
    there = import_dataset(
        pictures, domain="spores", out=tmp_path / "there", opener=OPENER,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    here = import_dataset(pictures, domain="spores", out=tmp_path / "here")
    assert (there.digest, there.counts) == (here.digest, here.counts)
    assert [shard.rows for shard in there.shards] == [shard.rows for shard in here.shards]
    assert rows_of(tmp_path / "there") == rows_of(tmp_path / "here")
    assert told[-1] == (80, 80)


def test_objects_tiles_and_a_data_set_as_source(ray_here: None, pictures: Path, tmp_path: Path) -> None:
    """What keeps files open, or makes several rows of a pair."""
    for name, options in (
        ("objects", ReadOptions(choice=MaskChoice(instances=True))),
        ("tiles", ReadOptions(parts=PartOptions(tile=48))),
    ):
        here = import_dataset(pictures, domain="spores", out=tmp_path / name, options=options)
        there = import_dataset(
            pictures, domain="spores", out=tmp_path / f"{name}-there", options=options, opener=OPENER
        )
        assert there.digest == here.digest, name
        assert sum(here.counts.values()) > 80, name
    copied = import_dataset(tmp_path / "tiles", domain="spores", out=tmp_path / "copy", opener=OPENER)
    assert copied.counts == read_card(tmp_path / "tiles").counts


def test_every_bad_file_is_named_and_nothing_is_left(ray_here: None, pictures: Path, tmp_path: Path) -> None:
    lines = [line.split(",") for line in (pictures / "train.csv").read_text().splitlines()[1:4]]
    rows = [f"{pictures / image},{pictures / mask}" for image, mask, *_ in lines]
    broken = tmp_path / "broken"
    broken.mkdir()
    for number, row in enumerate(rows):
        for kind, path in zip(("image", "mask"), row.split(","), strict=True):
            (broken / f"{kind}{number}.png").write_bytes(Path(path).read_bytes())
    (broken / "image1.png").write_bytes(b"no picture")
    (broken / "mask2.png").unlink()
    (broken / "list.csv").write_text(
        "image,label,split\n"
        + "".join(f"image{n}.png,mask{n}.png,{s}\n" for n, s in enumerate(("train", "val", "test")))
    )
    with pytest.raises(DataError, match=r"(?s)2 problems.*image1\.png.*mask2\.png: mask: no such file"):
        import_dataset(broken / "list.csv", domain="spores", out=tmp_path / "out", opener=OPENER)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_ray_data_reads_what_was_imported(ray_here: None, pictures: Path, tmp_path: Path) -> None:
    """As docs/data.md says: every row, with the very bytes of its picture and mask."""
    import ray

    card = import_dataset(pictures, domain="spores", out=tmp_path / "set")
    rows = {row["id"]: row for row in ray.data.read_parquet(str(tmp_path / "set" / "data")).take_all()}
    here = {row["id"]: row for row in pq.read_table(tmp_path / "set" / card.shards[0].name).to_pylist()}
    assert rows == here
    assert Counter(row["split"] for row in rows.values()) == card.counts
    for row in rows.values():
        assert row["image"]["bytes"] == (pictures / row["image"]["path"]).read_bytes()
        assert row["mask"]["bytes"].startswith(b"\x89PNG")


def test_the_command(ray_here: None, pictures: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    arguments = ["cluster", "import", str(pictures), "--domain", "spores", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--cpus", "0.5"])
    assert result.exit_code == 0, result.output
    assert read_card(tmp_path / "out").counts == {"train": 70, "val": 5, "test": 5}


def test_an_open_shelf_travels_empty() -> None:
    import pickle

    assert isinstance(pickle.loads(pickle.dumps(Shelf())), Shelf)
