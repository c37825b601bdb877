"""Does the right adapter choose itself? Routing against the oracle, against no adapter and against one for all domains.

    python benchmarks/routing.py [--quick] [--data FOLDER] [--work FOLDER] [--out FOLDER]

FOLDER of --data holds one folder per domain (polyp, leaf_disease, retinal_vessel, road, skin_lesion) with train.csv,
val.csv and test.csv (default: INFOSAM_TEST_DATA, or shared/data beside the checkout); --quick takes three procedural
domains instead. For each domain, and for all together, one LoRA is trained, briefly and alike. --work keeps what is
done, training and figures, so that the same command goes on after a stop; figures are kept per state of the bundles.

Tap and scorer are chosen on validation (`routing_choice.py`); the test split is scored once, with the statistics that
the package ships (`infosam.routing.features.FeatureConfig`), which must be the chosen ones for the figures to be those
of the choice: `chosen_is_default` says so. Dice: strict protocol, box around the truth, and none, per image at its own
size. An abstention is frozen SAM, and counts as wrong in accuracies. The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from results_file import publish
from rich.console import Console
from rich.table import Table
from routing_choice import Candidate, choose, encode_domain, judge_all
from routing_figures import JOINT, against_others, left_out, robustness, test_images
from routing_speed import measure_speed
from shared_sets import DOMAINS, VARIABLE, default_folder

from infosam.bundle import export_bundle
from infosam.config import RunConfig, validate
from infosam.data.card import SPLITS, Split
from infosam.data.dataset import SegmentationDataset
from infosam.data.manifest import Splitting
from infosam.data.store import import_dataset, open_dataset
from infosam.routing.features import FeatureConfig
from infosam.routing.fitting import SCENES, SCORER
from infosam.sam.weights import BaseSam, load_base
from infosam.synthetic import write_demo_domain
from infosam.training import best_checkpoint, load_materials, train

Figures = dict[str, Any]
GROUPS = {"polyp": r"(cvc_s\d+)", "retinal_vessel": r"(chase_\d+|drive_\d+|stare_\w+)"}
"""What a user would give as --group: frames of one sequence, both eyes of one child."""
BESIDE = ("dice_per_domain", "mistaken", "mistaken_disturbed", "taken_by")
"""What stands beside the figures in the file."""


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        sources = procedural(work) if arguments.quick else {name: arguments.data / name for name in DOMAINS}
        figures, more = measure(arguments, sources, work, console)
    console.print(f"canvas {arguments.size} px, {arguments.epochs} epochs, seed 0, domains: {', '.join(sources)}")
    if arguments.out:
        publish(arguments.out, "routing", figures, **more)
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder of data sets")
    parser.add_argument(
        "--work", type=Path, help="folder for data, adapters and what is done; default: a temporary one"
    )
    parser.add_argument("--out", type=Path, help="folder for a dated file of the figures")
    parser.add_argument("--size", type=int, default=128, help="side of the canvas in px")
    parser.add_argument("--epochs", type=int, default=4, help="of every adapter")
    parser.add_argument("--adapters", type=int, nargs="+", default=[5, 50, 500], help="sizes of pools, for speed")
    parser.add_argument("--requests", type=int, default=200, help="images of a stream, for latency")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three small procedural domains, to see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.epochs = 64, 1
        arguments.adapters, arguments.requests = [3, 6], 12
    return arguments


def measure(
    arguments: argparse.Namespace, sources: Mapping[str, Path], work: Path, console: Console
) -> tuple[Figures, Figures]:
    """All figures, and what stands beside them in the file."""
    config = settings(arguments)
    base = load_base(config.model)
    data = imported_sets(sources, work)
    console.print("Choosing tap and scorer on validation", style="dim")
    candidates = kept(work / f"choice-{arguments.size}.json", partial(on_validation, base, data, arguments.quick))
    ranking = choose(candidates, base.spec.depth, quick=arguments.quick)
    for name in ranking[:10]:
        console.print(f"{name:32s} {candidates[name]}", highlight=False)
    default = Candidate(FeatureConfig(), SCORER)
    bundles = {name: adapter(config, name, folder, work, console) for name, folder in data.items()}
    joint = adapter(config, JOINT, joined(sources, work), work, console)
    images = test_images(data)
    done = work / "figures" / state_of([*bundles.values(), joint])
    speed = partial(measure_speed, next(iter(bundles.values())), arguments.adapters, images[0].rgb, arguments.requests)
    found: Figures = {
        "chosen": ranking[0],
        "chosen_is_default": ranking[0] == default.name,
        **{f"val_{name}": value for name, value in candidates[default.name].items()},
        **kept(done / "dice.json", partial(against_others, bundles, joint, images)),
        **kept(done / "disturbed.json", partial(robustness, bundles, images)),
        **kept(done / "left_out.json", partial(left_out, bundles, images)),
        **kept(done / "speed.json", speed),
    }
    beside = {name: found.pop(name) for name in BESIDE}
    console.print(dice_table(beside["dice_per_domain"]))
    return found, {"candidates": candidates, **beside, "adapter": config.model_dump(mode="json")}


def kept(file: Path, make: Callable[[], Figures]) -> Figures:
    """What is in the file, made and written first if it is not there."""
    if not file.exists():
        figures = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(figures), encoding="utf-8")
        part.replace(file)
    found: Figures = json.loads(file.read_text(encoding="utf-8"))
    return found


def state_of(bundles: list[Path]) -> str:
    """Another name for other bundles: their cards hold the digests of all their files."""
    return hashlib.sha256(b"".join((bundle / "card.json").read_bytes() for bundle in bundles)).hexdigest()[:12]


def dice_table(per_domain: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    rows = [(domain, prompt, dice) for domain, prompts in per_domain.items() for prompt, dice in prompts.items()]
    table = Table("domain", "prompt", *rows[0][2], title="Dice on test", title_justify="left")
    for domain, prompt, dice in rows:
        table.add_row(domain, prompt, *(f"{value:.4f}" for value in dice.values()))
    return table


# -------------------------------------------------------------------------------------------- data and adapters


def imported_sets(sources: Mapping[str, Path], work: Path) -> dict[str, Path]:
    for source in sources.values():
        if not source.is_dir():
            raise SystemExit(f"{source} is missing; give --data or {VARIABLE}, or try --quick, without data")
    return {name: imported(source, name, work) for name, source in sources.items()}


def imported(source: Path, name: str, work: Path) -> Path:
    """The data set, imported unless it is there: to check it again takes as long."""
    out = work / "data" / name
    if not out.exists():
        import_dataset(source, domain=name, out=out, splitting=Splitting(group=GROUPS.get(name)))
    return out


def procedural(work: Path) -> dict[str, Path]:
    """Spores, their negative, and spores in other colours: alike in shape, unlike in what the encoder sees."""
    found = {}
    for seed, name in enumerate(("spores", "negative", "violet")):
        folder = work / "procedural" / name
        if not folder.exists():
            write_demo_domain(folder, seed=seed, train=20, val=4, test=6, image_px=64)
            for file in sorted((folder / "images").iterdir()):
                with Image.open(file) as picture:
                    rgb = np.array(picture)
                changed = {"spores": rgb, "negative": 255 - rgb, "violet": np.roll(rgb, 1, axis=2) // 2}[name]
                Image.fromarray(changed).save(file)
        found[name] = folder
    return found


def joined(sources: Mapping[str, Path], work: Path) -> Path:
    """All domains as one data set."""
    folder = work / "joint"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(source.resolve())
    for split in SPLITS:
        rows = [
            ",".join(f"{name}/{path}" for path in line.split(","))
            for name, source in sources.items()
            for line in (source / f"{split}.csv").read_text(encoding="utf-8").splitlines()[1:]
        ]
        (folder / f"{split}.csv").write_text("\n".join(["image,label", *rows]) + "\n", encoding="utf-8")
    return imported(folder, JOINT, work)


def settings(arguments: argparse.Namespace) -> RunConfig:
    """LoRA in the upper blocks, without information terms: short, and the same for all."""
    return validate(
        RunConfig,
        {
            "model": {"image_px": arguments.size},
            "peft": {"kind": "lora", "rank": 4, "first_block": 3},
            "info": {"compression": 0, "distillation": 0},
            "train": {"epochs": arguments.epochs, "batch_size": 4, "device": "cpu"},
            "optim": {"lr": 1e-3},
        },
        "routing benchmark",
    )


def adapter(config: RunConfig, name: str, data: Path, work: Path, console: Console) -> Path:
    """The bundle of one domain, trained unless it is there."""
    run = work / "adapters" / name
    if not (run / "bundle").exists():
        materials = load_materials(config.model, data, device="cpu", baselines=False)
        for report in train(config, materials, checkpoint_dir=run / "checkpoints"):
            console.print(f"{name}: epoch {report.epoch}, val Dice {report.values['val/dice']:.3f}", style="dim")
        checkpoint = best_checkpoint(run / "checkpoints")
        assert checkpoint is not None
        export_bundle(checkpoint, materials, run / "bundle", card={"domain": name})
    return run / "bundle"


def on_validation(base: BaseSam, data: Mapping[str, Path], quick: bool) -> Figures:
    """The figures of all candidates."""
    splits: tuple[Split, ...] = ("train", "val")
    encoded = {
        name: encode_domain(
            base, {split: SegmentationDataset(open_dataset(folder), split, base.spec.image_px) for split in splits}
        )
        for name, folder in data.items()
    }
    return dict(judge_all(base, encoded, scenes=8 if quick else SCENES, quick=quick))


if __name__ == "__main__":
    main()
