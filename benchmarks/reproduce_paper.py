"""The paper's main table again: five data sets, official vit_b, adapter and LoRA with and without InfoSAM.

    python benchmarks/reproduce_paper.py --data FOLDER --checkpoint sam_vit_b_01ec64.pth --out runs/paper
    python benchmarks/reproduce_paper.py --dry-run      # the same commands on stand-in files, in a minute or two

FOLDER holds camo, isic2017, kvasir, leaf and road, each with train.csv, val.csv and test.csv. Every command it runs is
printed, so any part can be run by hand. A finished cell is not run again. One seed a cell; the paper has three.
The paper scores the last epoch under the official protocol; rows here score the epoch that val chose, under both.
The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from infosam.cli import Session, build_app

CONFIGS = Path(__file__).parent / "paper"
METHODS = {
    "decoder only": ["peft={kind: decoder}", "info.compression=0", "info.distillation=0"],
    "Adapter": ["info.compression=0", "info.distillation=0"],
    "Adapter + InfoSAM": [],
    "LoRA": ["peft={kind: lora, rank: 4}", "info.compression=0", "info.distillation=0"],
    "LoRA + InfoSAM": ["peft={kind: lora, rank: 4}"],
}
# InfoSAM (ICML 2025), table 1, percent: the metrics its authors report for each set.
PAPER: dict[str, dict[str, dict[str, float]]] = {
    "camo": {
        "zero-shot": {"s_measure": 79.7, "e_adaptive": 88.8, "weighted_f": 79.6},
        "decoder only": {"s_measure": 84.9, "e_adaptive": 92.7, "weighted_f": 81.8},
        "Adapter": {"s_measure": 88.2, "e_adaptive": 94.8, "weighted_f": 86.7},
        "Adapter + InfoSAM": {"s_measure": 88.6, "e_adaptive": 95.1, "weighted_f": 87.1},
        "LoRA": {"s_measure": 87.7, "e_adaptive": 94.6, "weighted_f": 85.1},
        "LoRA + InfoSAM": {"s_measure": 88.3, "e_adaptive": 95.2, "weighted_f": 85.8},
    },
    "isic2017": {
        "zero-shot": {"iou": 61.0, "dice": 71.7},
        "decoder only": {"iou": 85.9, "dice": 92.2},
        "Adapter": {"iou": 87.7, "dice": 93.2},
        "Adapter + InfoSAM": {"iou": 88.0, "dice": 93.4},
        "LoRA": {"iou": 87.8, "dice": 93.3},
        "LoRA + InfoSAM": {"iou": 88.1, "dice": 93.5},
    },
    "kvasir": {
        "zero-shot": {"s_measure": 71.4, "e_adaptive": 77.9},
        "decoder only": {"s_measure": 90.9, "e_adaptive": 95.2},
        "Adapter": {"s_measure": 93.4, "e_adaptive": 97.1},
        "Adapter + InfoSAM": {"s_measure": 94.4, "e_adaptive": 97.9},
        "LoRA": {"s_measure": 93.0, "e_adaptive": 96.6},
        "LoRA + InfoSAM": {"s_measure": 93.4, "e_adaptive": 96.8},
    },
    "leaf": {
        "zero-shot": {"iou": 37.6, "dice": 47.0},
        "decoder only": {"iou": 55.6, "dice": 68.8},
        "Adapter": {"iou": 74.4, "dice": 84.3},
        "Adapter + InfoSAM": {"iou": 75.6, "dice": 85.2},
        "LoRA": {"iou": 71.4, "dice": 82.1},
        "LoRA + InfoSAM": {"iou": 72.2, "dice": 82.8},
    },
    "road": {
        "zero-shot": {"iou": 7.2, "dice": 12.9},
        "decoder only": {"iou": 47.6, "dice": 64.1},
        "Adapter": {"iou": 60.5, "dice": 75.1},
        "Adapter + InfoSAM": {"iou": 61.4, "dice": 75.8},
        "LoRA": {"iou": 59.0, "dice": 74.0},
        "LoRA + InfoSAM": {"iou": 59.9, "dice": 74.6},
    },
}
OFFICIAL_PROMPT = {"road": "points"}  # all other sets: one box
DRY_RUN = ["model.name=vit_nano", "model.image_px=64", "train.epochs=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the five data sets")
    parser.add_argument("--checkpoint", type=Path, help="the official vit_b weights")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="folder of imported data, runs and scores")
    parser.add_argument("--only", choices=sorted(PAPER), action="append", help="these sets only")
    parser.add_argument("--dry-run", "--quick", action="store_true", help="stand-in files and vit_nano, one epoch")
    arguments = parser.parse_args()
    if not arguments.dry_run and (arguments.data is None or arguments.checkpoint is None):
        parser.error("--data and --checkpoint are needed; or try --dry-run")
    sets = arguments.only or list(PAPER)
    if arguments.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            data = make_stand_ins(Path(scratch) / "data", sets)
            _run_all(data, None, Path(scratch) / "out", sets, dry=True)
    else:
        _run_all(arguments.data, arguments.checkpoint, arguments.out, sets, dry=False)


def make_stand_ins(folder: Path, sets: list[str]) -> Path:
    """A few procedural images under the name of each set."""
    from infosam.synthetic import write_demo_domain

    for seed, name in enumerate(sets):
        write_demo_domain(folder / name, seed=seed, train=8, val=2, test=3, image_px=64)
    return folder


def _run_all(data: Path, checkpoint: Path | None, out: Path, sets: list[str], *, dry: bool) -> None:
    console = Console()
    figures: dict[str, float] = {}
    for name in sets:
        imported = out / "data" / name
        if not imported.exists():
            _infosam("data", "import", str(data / name), "--domain", name, "--out", str(imported))
        for method, overrides in METHODS.items():
            run = out / name / method.replace(" ", "-").lower()
            if not (run / "official" / "scores.parquet").exists():
                _run_cell(name, imported, run, overrides, checkpoint, dry=dry)
            figures |= _figures(name, method, run)
        console.print(_table(name, figures))
    protocol = (
        "dry run on stand-in files: the figures mean nothing" if dry else "test split, official protocol, seed 42"
    )
    console.print(protocol, highlight=False)
    print(json.dumps(figures))


def _run_cell(
    name: str, imported: Path, run: Path, overrides: list[str], checkpoint: Path | None, *, dry: bool
) -> None:
    """Trains one method on one set and scores it under both protocols."""
    settings = [*overrides, *(DRY_RUN if dry else [f"model.checkpoint={checkpoint}"])]
    _infosam("train", "--data", str(imported), "--out", str(run), "--config", str(CONFIGS / f"{name}.yaml"), *settings)
    weights = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
    common = ["evaluate", str(run / "bundle"), "--data", str(imported), "--split", "test", *weights]
    _infosam(*common, "--protocol", "strict", "--out", str(run / "strict"))
    prompt = ["--prompt", OFFICIAL_PROMPT[name]] if name in OFFICIAL_PROMPT else []
    _infosam(*common, "--protocol", "official", *prompt, "--out", str(run / "official"))


def _figures(name: str, method: str, run: Path) -> dict[str, float]:
    """Mean test scores of the adapter under the official protocol, and of zero-shot SAM beside it."""
    metrics = list(PAPER[name]["zero-shot"])
    table = pq.read_table(run / "official" / "scores.parquet")
    means = table.group_by("model").aggregate([(metric, "mean") for metric in metrics]).to_pylist()
    rows = {"adapter": method, "zero_shot": "zero-shot"}
    return {
        f"{name}/{rows[mean['model']]}/{metric}": round(100 * mean[f"{metric}_mean"], 2)
        for mean in means
        if mean["model"] in rows
        for metric in metrics
    }


def _table(name: str, figures: dict[str, float]) -> Table:
    table = Table("method", title=f"{name}: ours, and the paper's", title_justify="left")
    metrics = list(PAPER[name]["zero-shot"])
    for metric in metrics:
        table.add_column(metric, justify="right")
        table.add_column("paper", justify="right")
    for method, published in PAPER[name].items():
        cells = []
        for metric in metrics:
            ours = figures.get(f"{name}/{method}/{metric}")
            cells += ["" if ours is None else f"{ours:.1f}", f"{published[metric]:.1f}"]
        table.add_row(method, *cells)
    return table


def _infosam(*words: str) -> None:
    print("$ infosam", shlex.join(words), flush=True)
    app, _ = build_app()
    app(args=list(words), standalone_mode=False, prog_name="infosam", obj=Session())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
