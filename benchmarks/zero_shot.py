"""Zero-shot IoU of the shipped vit_nano on data sets, beside the trivial baselines.

    python benchmarks/zero_shot.py --data FOLDER_OF_SETS [--split val|test] [--quick]

FOLDER_OF_SETS holds one folder per set with train.csv, val.csv and test.csv. Choose recipes on val; score test once.
Without --data a procedural domain stands in. The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infosam.config import ModelConfig
from infosam.data.card import Split
from infosam.data.dataset import SegmentationDataset
from infosam.data.store import import_dataset, open_dataset
from infosam.evaluation import PROTOCOL, choose_device, mean_scores, score, trivial_means
from infosam.sam.weights import BaseSam, load_base
from infosam.synthetic import write_demo_domain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--quick", action="store_true", help="one procedural set only")
    arguments = parser.parse_args()
    base = load_base(ModelConfig())
    console = Console()
    table = Table("set", "prompt", title=f"zero-shot vit_nano, {arguments.split} split", title_justify="left")
    for heading in ("images", "IoU", "trivial IoU", "Dice", "trivial Dice"):
        table.add_column(heading, justify="right")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for source in _sources(None if arguments.quick else arguments.data, Path(scratch)):
            figures |= _score_set(source, Path(scratch), base, arguments.split, table)
    console.print(table)
    console.print(f"weights SHA-256 {base.sha256[:16]}; {PROTOCOL}", highlight=False)
    print(json.dumps(figures))


def _sources(data: Path | None, scratch: Path) -> list[Path]:
    if data is None:
        return [write_demo_domain(scratch / "spores", train=2, val=8, test=8)]
    return sorted(path for path in data.iterdir() if (path / "test.csv").is_file())


def _score_set(source: Path, scratch: Path, base: BaseSam, split: Split, table: Table) -> dict[str, float]:
    folder = scratch / f"imported-{source.name}"
    import_dataset(source, domain=source.name, out=folder)
    dataset = SegmentationDataset(open_dataset(folder), split, base.spec.image_px)
    started = time.perf_counter()
    ours = mean_scores(score(base.sam, dataset, device=choose_device("cpu")), split)
    trivial = trivial_means(dataset, split)
    figures = {f"seconds_{source.name}": round(time.perf_counter() - started, 1)}
    for prompt in ("box", "none"):
        iou, dice = f"{split}/{prompt}/iou", f"{split}/{prompt}/dice"
        table.add_row(
            source.name, prompt, str(len(dataset)),
            f"{ours[iou]:.4f}", f"{trivial[iou]:.4f}", f"{ours[dice]:.4f}", f"{trivial[dice]:.4f}",
        )  # fmt: skip
        figures[f"iou_{source.name}_{prompt}"] = round(ours[iou], 4)
        figures[f"trivial_iou_{source.name}_{prompt}"] = round(trivial[iou], 4)
    return figures


if __name__ == "__main__":
    main()
