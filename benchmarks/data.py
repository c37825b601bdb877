"""Import of many small pictures: peak memory for few and for many, and speed beside Hugging Face `datasets`.

    python benchmarks/data.py [--quick] [--pairs 100000] [--out DIR]

A tenth of the pairs, then all, are imported by a process of their own, which says its peak memory; pictures are 32 x 32
px PNGs, one of 500 each, under as many names as pairs (hard links). `datasets`, if it is installed, writes the same
pairs into one Parquet file, in a process of its own, too: it neither opens the pictures nor compares the masks with
them. The last line is one JSON object of figures.
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
from pathlib import Path

import numpy as np
from PIL import Image
from results_file import publish

DIFFERENT = 500
SIDE_PX = 32
MIB = 1 << 20
MEASURED = """
import json, resource, sys, time
from pathlib import Path
source, out = Path(sys.argv[1]), Path(sys.argv[2])
{prepare}
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({{"rows": rows, "seconds": seconds, "peak_bytes": peak}}))
"""
IMPORT = MEASURED.format(
    prepare="from infosam.data.store import import_dataset",
    work='rows = sum(import_dataset(source, domain="many", out=out).counts.values())',
)
BY_DATASETS = MEASURED.format(
    prepare="""import datasets
features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
def pairs():
    for line in source.read_text(encoding="utf-8").splitlines()[1:]:
        image, mask = line.split(",")
        yield {"image": str(source.parent / image), "mask": str(source.parent / mask)}""",
    work="""made = datasets.Dataset.from_generator(pairs, features=features, cache_dir=str(out.parent / "cache"))
made.to_parquet(str(out))
rows = made.num_rows""",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="2,000 pairs")
    parser.add_argument("--out", type=Path, help="folder of results, such as benchmarks/results")
    arguments = parser.parse_args()
    pairs = 2_000 if arguments.quick else arguments.pairs
    figures: dict[str, float] = {"pairs": pairs}
    with tempfile.TemporaryDirectory() as scratch:
        few, many = write_source(Path(scratch) / "few", pairs // 10), write_source(Path(scratch) / "many", pairs)
        figures |= measured("few", "checked and stored", IMPORT, few, Path(scratch) / "set-few")
        figures |= measured("many", "checked and stored", IMPORT, many, Path(scratch) / "set-many")
        if importlib.util.find_spec("datasets"):
            figures |= measured("datasets", "written by `datasets`", BY_DATASETS, many, Path(scratch) / "hf.parquet")
    figures["peak_ratio"] = figures["many/peak_bytes"] / figures["few/peak_bytes"]
    print(f"peak for ten times the pairs: {figures['peak_ratio']:.3f} times that for the few")
    if arguments.out:
        publish(arguments.out, "data", figures)
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


def measured(name: str, done: str, script: str, source: Path, out: Path) -> dict[str, float]:
    """Rows, seconds and peak bytes of a script in a process of its own."""
    command = [sys.executable, "-c", script, str(source), str(out)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    speed, peak = found["rows"] / found["seconds"], found["peak_bytes"] / MIB
    print(f"{found['rows']:>9,.0f} pairs {done}: {speed:,.0f} pairs/s, peak {peak:,.0f} MiB", flush=True)
    return {f"{name}/{key}": value for key, value in found.items()}


if __name__ == "__main__":
    main()
