"""Import of many small pictures: peak memory for few and for many, and speed beside Hugging Face `datasets`.

    python benchmarks/data.py [--quick] [--pairs 100000]

A tenth of the pairs, then all, are imported by a process of their own, which says its peak memory; pictures are 32 x 32
px PNGs, one of 500 each, under as many names as pairs (hard links). `datasets`, if it is installed, writes the same
pairs into one Parquet file without checking them. The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

DIFFERENT = 500
SIDE_PX = 32
MIB = 1 << 20
IMPORT = """
import json, resource, sys, time
from pathlib import Path
from infosam.data.store import import_dataset
started = time.perf_counter()
card = import_dataset(Path(sys.argv[1]), domain="many", out=Path(sys.argv[2]))
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"rows": sum(card.counts.values()), "seconds": seconds, "peak_bytes": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="2,000 pairs, without `datasets`")
    arguments = parser.parse_args()
    pairs = 2_000 if arguments.quick else arguments.pairs
    figures: dict[str, float] = {"pairs": pairs}
    with tempfile.TemporaryDirectory() as scratch:
        few, many = write_source(Path(scratch) / "few", pairs // 10), write_source(Path(scratch) / "many", pairs)
        figures |= {f"few/{name}": value for name, value in imported(few, Path(scratch) / "set-few").items()}
        figures |= {f"many/{name}": value for name, value in imported(many, Path(scratch) / "set-many").items()}
        figures["peak_ratio"] = figures["many/peak_bytes"] / figures["few/peak_bytes"]
        if not arguments.quick and importlib.util.find_spec("datasets"):
            figures["datasets/seconds"] = written_by_datasets(many, Path(scratch) / "hf.parquet")
    for name in ("few", "many"):
        speed = figures[f"{name}/rows"] / figures[f"{name}/seconds"]
        peak = figures[f"{name}/peak_bytes"] / MIB
        print(f"{figures[f'{name}/rows']:>9,.0f} pairs: {speed:,.0f} pairs/s checked and stored, peak {peak:,.0f} MiB")
    print(f"peak ratio {figures['peak_ratio']:.3f}")
    if "datasets/seconds" in figures:
        print(f"datasets writes them unchecked at {pairs / figures['datasets/seconds']:,.0f} pairs/s")
    print(json.dumps(figures))


def write_source(folder: Path, pairs: int) -> Path:
    """images/, masks/ and list.csv; each picture is one of DIFFERENT."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for number in range(min(DIFFERENT, pairs)):
            (folder / kind / f"{number:07}.png").write_bytes(_encoded(kind, rng))
        for number in range(DIFFERENT, pairs):
            os.link(folder / kind / f"{number % DIFFERENT:07}.png", folder / kind / f"{number:07}.png")
    rows = (f"images/{number:07}.png,masks/{number:07}.png\n" for number in range(pairs))
    with (folder / "list.csv").open("w", encoding="utf-8") as file:
        file.write("image,label\n")
        file.writelines(rows)
    return folder / "list.csv"


def _encoded(kind: str, rng: np.random.Generator) -> bytes:
    pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    if kind == "masks":
        pixels = np.where(pixels[:, :, 0] > 127, 255, 0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def imported(source: Path, out: Path) -> dict[str, float]:
    """Rows, seconds and peak bytes of an import in a process of its own."""
    command = [sys.executable, "-c", IMPORT, str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def written_by_datasets(source: Path, out: Path) -> float:
    """Seconds that `datasets` takes to write the same pairs into one Parquet file."""
    import datasets

    def rows() -> Iterator[dict[str, str]]:
        for line in source.read_text(encoding="utf-8").splitlines()[1:]:
            image, mask = line.split(",")
            yield {"image": str(source.parent / image), "mask": str(source.parent / mask)}

    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    started = time.perf_counter()
    made = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(out.parent / "cache"))
    made.to_parquet(str(out))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
