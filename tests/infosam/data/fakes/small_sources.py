"""One small source for each reader, six pairs of 24 x 32 px, written as other programs write them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

SIZE = (24, 32)
AMOUNT = 6


def pixels(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def truth(number: int) -> NDArray[np.bool_]:
    """A rectangle that lies elsewhere in each."""
    mask = np.zeros(SIZE, np.bool_)
    mask[4 : 12 + number, 5 + number : 20] = True
    return mask


def encoded(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def write_pictures(folder: Path, image: str = "images/{}.png", mask: str | None = "masks/{}.png") -> None:
    for number in range(AMOUNT):
        for name, content in ((image, pixels(number)), (mask, truth(number).astype(np.uint8) * 255)):
            if name is not None:
                path = folder / name.format(number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(content))


def folders(folder: Path) -> Path:
    write_pictures(folder, mask="masks/{}_mask.png")
    return folder


def beside(folder: Path) -> Path:
    write_pictures(folder, "{}_sat.png", "{}_mask.png")
    return folder


def cases(folder: Path) -> Path:
    write_pictures(folder, "case{0}/case{0}_t1.png", "case{0}/case{0}_seg.png")
    return folder


def array_sets(folder: Path) -> Path:
    folder.mkdir()
    numbers = {"train": range(4), "val": range(4, AMOUNT)}
    arrays = {f"{split}_images": np.stack([pixels(n) for n in some]) for split, some in numbers.items()}
    drawn = {f"{split}_label": np.stack([truth(n) for n in some]) for split, some in numbers.items()}
    np.savez_compressed(folder / "set.npz", **arrays, **drawn)
    return folder / "set.npz"


def lists(folder: Path) -> Path:
    write_pictures(folder)
    rows = "".join(f"images/{number}.png\tmasks/{number}.png\tp{number // 2}\n" for number in range(AMOUNT))
    (folder / "list.tsv").write_text("image\tlabel\tgroup\n" + rows)
    return folder / "list.tsv"


def rectangle(number: int) -> list[float]:
    return [5.0 + number, 4.0, 20.0, 4.0, 20.0, 12.0 + number, 5.0 + number, 12.0 + number]


def coco_content() -> dict[str, object]:
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(AMOUNT)],
        "annotations": [
            {"id": 100 + n, "image_id": n, "category_id": 1, "segmentation": [rectangle(n)]} for n in range(AMOUNT)
        ],
        "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "ball"}],
    }


def coco(folder: Path) -> Path:
    write_pictures(folder, mask=None)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances.json").write_text(json.dumps(coco_content()))
    return folder


def huggingface(folder: Path) -> Path:
    """As `DatasetDict.save_to_disk` of `datasets` 5 lays it out."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    folder.mkdir(parents=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    for split, numbers in (("train", range(4)), ("validation", range(4, AMOUNT))):
        place = folder / split
        place.mkdir()
        columns = {
            "image": [{"bytes": encoded(pixels(n)), "path": None} for n in numbers],
            "label": [{"bytes": encoded(truth(n).astype(np.uint8)), "path": None} for n in numbers],
        }
        table = pa.table({name: pa.array(cells, kind) for name, cells in columns.items()})
        with pa.OSFile(str(place / "data-00000-of-00001.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=3)
        (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return folder


SOURCES: Mapping[str, Callable[[Path], Path]] = {
    "Folders": folders,
    "ArraySets": array_sets,
    "Beside": beside,
    "Cases": cases,
    "Lists": lists,
    "Coco": coco,
    "HuggingFace": huggingface,
}
