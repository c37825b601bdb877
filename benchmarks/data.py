"""Import of many small pictures: peak memory for few and for many, and speed beside Hugging Face `datasets`.

    python benchmarks/data.py [--quick] [--pairs 100000] [--px 32] [--out DIR]

A tenth of the pairs, then all, go through `infosam data import` in a process of their own, which says the most memory
it held; pictures are PNGs of noise, one of 500 each, under as many names as pairs (hard links). `datasets`, if it is
installed, does the same with the same pairs in a process of its own: it reads and opens both files, compares their
sizes, encodes the mask anew, and writes one Parquet file, which is then looked into. `infosam cluster import` does it
with two workers for a hundredth and a tenth of the pairs; its memory is that of all its processes and of Ray's, each
page they share counted once (PSS), and its seconds include the start of Ray. The first line says what is measured and
where, the last is one JSON object: `ratio_peak` is for ten times the pairs, `ratio_pairs_per_second` ours over theirs.
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
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from memory_of_tree import Watch
from PIL import Image
from results_file import machine, publish

from infosam.data.card import read_card

DIFFERENT = 500
SEED = 0
WORKERS = 2
MIB = 1 << 20
MEASURED = """
import json, sys, time
from pathlib import Path
source, out = Path(sys.argv[1]), Path(sys.argv[2])
{prepare}
started = time.perf_counter()
{work}
seconds = time.perf_counter() - started
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) * 1024  # getrusage would tell that of the process that started this one
print(json.dumps({{"rows": rows, "seconds": seconds, "peak_bytes": peak}}))
"""
IMPORT = MEASURED.format(
    prepare="from infosam.cli import main\nfrom infosam.data.card import read_card",
    work="""sys.argv = ["infosam", "data", "import", str(source), "--domain", "many", "--out", str(out)]
try:
    main()
except SystemExit as ended:
    if ended.code:
        raise
rows = sum(read_card(out).counts.values())""",
)
BY_DATASETS = MEASURED.format(
    prepare="""import io
import datasets, numpy
from PIL import Image
datasets.disable_progress_bars()
features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
def pairs():
    for line in source.read_text(encoding="utf-8").splitlines()[1:]:
        names = line.split(",")
        image, mask = ((source.parent / name).read_bytes() for name in names)
        with Image.open(io.BytesIO(image)) as picture, Image.open(io.BytesIO(mask)) as drawn:
            pixels, values = numpy.asarray(picture.convert("RGB")), numpy.asarray(drawn)
        if pixels.shape[:2] != values.shape:
            raise ValueError(line)
        png = io.BytesIO()
        Image.fromarray((values > 0).astype(numpy.uint8) * 255).save(png, format="PNG")
        yield {"image": {"bytes": image, "path": names[0]}, "mask": {"bytes": png.getvalue(), "path": names[1]}}""",
    work="""made = datasets.Dataset.from_generator(pairs, features=features, cache_dir=str(out.parent / "cache"))
made.to_parquet(str(out))
rows = made.num_rows""",
)
BY_CLUSTER = "from infosam.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="2,000 pairs")
    parser.add_argument("--px", type=int, default=32, help="side of the pictures")
    parser.add_argument("--out", type=Path, help="folder of results, such as benchmarks/results")
    arguments = parser.parse_args()
    pairs = 2_000 if arguments.quick else arguments.pairs
    figures: dict[str, float] = {"pairs": pairs, "px": arguments.px}
    print(f"{pairs:,} pairs of {arguments.px} px, seed {SEED}, on {machine()}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        few = write_source(work / "few", pairs // 10, arguments.px)
        many = write_source(work / "many", pairs, arguments.px)
        figures |= measured("few", "checked and stored", IMPORT, few, work / "set-few")
        figures |= measured("many", "checked and stored", IMPORT, many, work / "set-many")
        if importlib.util.find_spec("datasets"):
            figures |= measured("datasets", "by `datasets`", BY_DATASETS, many, work / "hf.parquet")
            look_into(work / "hf.parquet", pairs)
            ratio = figures["ratio_pairs_per_second"] = figures["datasets/seconds"] / figures["many/seconds"]
            print(f"pairs a second: {ratio:.3f} times those of `datasets`")
        if importlib.util.find_spec("ray"):
            fewest = write_source(work / "fewest", pairs // 100, arguments.px)
            figures |= by_cluster("cluster/few", fewest, work / "cluster-few")
            figures |= by_cluster("cluster/many", few, work / "cluster-many")
    for kind in [""] + ["cluster/"] * ("cluster/many/rows" in figures):
        ratio = figures[f"ratio_{kind.replace('/', '_')}peak"] = (
            figures[f"{kind}many/peak_bytes"] / figures[f"{kind}few/peak_bytes"]
        )
        print(f"{kind}peak for ten times the pairs: {ratio:.3f} times that for the few")
    if arguments.out:
        publish(arguments.out, "data", figures)
    print(json.dumps(figures))


def write_source(folder: Path, pairs: int, side_px: int) -> Path:
    """images/, masks/ and list.csv; each picture is one of DIFFERENT."""
    rng = np.random.default_rng(SEED)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for number in range(min(DIFFERENT, pairs)):
            (folder / kind / f"{number:07}.png").write_bytes(_encoded(kind, side_px, rng))
        for number in range(DIFFERENT, pairs):
            os.link(folder / kind / f"{number % DIFFERENT:07}.png", folder / kind / f"{number:07}.png")
    rows = (f"images/{number:07}.png,masks/{number:07}.png\n" for number in range(pairs))
    with (folder / "list.csv").open("w", encoding="utf-8") as file:
        file.write("image,label\n")
        file.writelines(rows)
    return folder / "list.csv"


def _encoded(kind: str, side_px: int, rng: np.random.Generator) -> bytes:
    pixels = rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    if kind == "masks":
        pixels = np.where(pixels[:, :, 0] > 127, 255, 0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def measured(name: str, done: str, script: str, source: Path, out: Path) -> dict[str, float]:
    """Rows, seconds and peak bytes of a script in a process of its own."""
    command = [sys.executable, "-c", script, str(source), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{name}: ended with {ended.returncode}\n{ended.stderr}")
    return _told(name, done, json.loads(ended.stdout.splitlines()[-1]))


def by_cluster(name: str, source: Path, out: Path) -> dict[str, float]:
    """The same of `infosam cluster import` on a Ray of its own."""
    arguments = ["cluster", "import", str(source), "--domain", "many", "--out", str(out), "--workers", str(WORKERS)]
    command = [sys.executable, "-c", BY_CLUSTER, *arguments, "--cpus", "0.5"]
    environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    started = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, env=environment) as running,
        Watch(running.pid) as watch,
    ):
        if running.wait():
            told.seek(0)
            raise SystemExit(f"{' '.join(arguments)}: ended with {running.returncode}\n{told.read()}")
    seconds = time.perf_counter() - started
    rows = sum(read_card(out).counts.values())
    return _told(name, "by `cluster import`", {"rows": rows, "seconds": seconds, "peak_bytes": watch.peak_bytes})


def _told(name: str, done: str, found: dict[str, float]) -> dict[str, float]:
    speed, peak = found["rows"] / found["seconds"], found["peak_bytes"] / MIB
    print(f"{found['rows']:>9,.0f} pairs {done}: {speed:,.0f} pairs/s, peak {peak:,.0f} MiB", flush=True)
    return {f"{name}/{key}": value for key, value in found.items()}


def look_into(path: Path, pairs: int) -> None:
    """Leaves with a message unless a Parquet file holds the bytes of so many pictures and masks: names alone would be
    no comparison."""
    for column in ("image", "mask"):
        cells = pq.read_table(path, columns=[column])[column].to_pylist()
        held = sum(bool(cell["bytes"]) and cell["bytes"].startswith(b"\x89PNG") for cell in cells)
        if held != pairs:
            raise SystemExit(f"{path}: {held} of {pairs} cells of column {column!r} hold a picture")


if __name__ == "__main__":
    main()
