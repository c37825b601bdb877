"""Does the right adapter choose itself? Routing against the oracle, against no adapter and against one for all domains.

    python benchmarks/routing.py [--stage choose|test|cost|all] [--quick] [--data FOLDER] [--work FOLDER] [--out FOLDER]

FOLDER of --data holds one folder per domain (polyp, leaf_disease, retinal_vessel, road, skin_lesion) with train.csv,
val.csv and test.csv (default: INFOSAM_TEST_DATA, or shared/data beside the checkout), and generic_objects, photographs
that belong to none of them; --quick takes three procedural domains instead. --work keeps what is done (features,
training, figures), so that the same command goes on after a stop; figures are kept per state of the bundles.

choose: tap, fitting rule and way to choose are decided on train and val (`routing_choice.py`) and written to --out as
DATE-routing-choice.json. test: for each domain, and for all together, one LoRA is trained, briefly and alike, and the
test split is scored, with the statistics that the package ships; refused unless they are those of the newest choice in
--out. cost: memory, swaps and latencies of pools (`routing_speed.py`), without a look at test; written as
DATE-routing-cost.json. all (default): one after the other. Dice: strict protocol, box around the truth, and none, per
image at its own size. An abstention is frozen SAM, and counts as wrong in accuracies. The last line is one JSON object
of figures.
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
from routing_choice import CANDIDATES, DEFAULT, DISTURBED, QUICK_CANDIDATES, TAPS, TARGETS, choose, encoded, judge
from routing_figures import JOINT, against_others, open_set, summary, under
from routing_masks import Shown, images_of
from routing_speed import measure_speed
from shared_sets import DOMAINS, VARIABLE, default_folder
from torch import Tensor

from infosam.bundle import export_bundle
from infosam.config import RunConfig, validate
from infosam.data.card import SPLITS, Split
from infosam.data.manifest import Splitting
from infosam.data.store import import_dataset
from infosam.routing.features import FeatureConfig
from infosam.routing.fitting import encode_pictures, scene_features
from infosam.sam.weights import BaseSam, load_base
from infosam.synthetic import write_demo_domain
from infosam.training import best_checkpoint, load_materials, train

Figures = dict[str, Any]
GROUPS = {"polyp": r"(cvc_s\d+)", "retinal_vessel": r"(chase_\d+|drive_\d+|stare_\w+)"}
"""What a user would give as --group: frames of one sequence, both eyes of one child."""
BESIDE = ("dice_per_domain", "mistaken", "accuracy_per_domain")
"""What stands beside the figures in the file."""
STRANGERS = "generic_objects"
"""Photographs of everyday things, asked about and never trained on."""
MOST_STRANGERS = 120
CHOICE = "routing-choice"
FIRST_BLOCKS = (0, 2, 3)
USUAL_BLOCK = 3
"""Where the adapters of all stages begin."""


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        sources = procedural(work) if arguments.quick else {name: arguments.data / name for name in DOMAINS}
        data = imported_sets(sources, work)
        figures: Figures = {}
        if arguments.stage in ("choose", "all"):
            figures |= choice(arguments, data, work, console)
        if arguments.stage in ("test", "all"):
            refuse_other_than_chosen(arguments, figures)
            found, more = measure(arguments, sources, data, work, console)
            if arguments.out:
                publish(arguments.out, "routing", figures | found, **more)
            figures |= found
        if arguments.stage in ("cost", "all"):
            found = cost(arguments, data, work, console)
            if arguments.out:
                publish(arguments.out, "routing-cost", found, threads=arguments.threads, requests=arguments.requests)
            figures |= found
    console.print(f"canvas {arguments.size} px, {arguments.epochs} epochs, seed 0, domains: {', '.join(sources)}")
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["choose", "test", "cost", "all"], default="all")
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder of data sets")
    parser.add_argument(
        "--work", type=Path, help="folder for data, adapters and what is done; default: a temporary one"
    )
    parser.add_argument("--out", type=Path, help="folder for dated files of the figures")
    parser.add_argument("--size", type=int, default=192, help="side of the canvas in px")
    parser.add_argument("--epochs", type=int, default=4, help="of every adapter")
    parser.add_argument("--adapters", type=int, nargs="+", default=[5, 50, 500], help="sizes of pools, for the cost")
    parser.add_argument("--requests", type=int, default=200, help="images of a stream, for the cost")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three small procedural domains, to see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.epochs = 64, 1
        arguments.adapters, arguments.requests = [3, 6], 12
    return arguments


def choice(arguments: argparse.Namespace, data: Mapping[str, Path], work: Path, console: Console) -> Figures:
    """What was chosen, and the default's figures on train and val; published."""
    base = load_base(settings(arguments).model)
    folder = work / f"encoded-{arguments.size}"
    console.print("Choosing tap, rule and chooser on train and val", style="dim")
    domains = {name: encoded(base, path, folder / f"{name}.npz") for name, path in data.items()}
    strangers = strange_features(arguments, base, work, folder)
    judged = judge(QUICK_CANDIDATES if arguments.quick else CANDIDATES, domains, strangers)
    for name, found in judged.items():
        told = " ".join(f"{found[key]:.3f}" for key in ("shortfall", *TARGETS))
        console.print(f"{name:62s} {told}", highlight=False)
    chosen = choose(judged)
    figures = {"chosen": chosen, "chosen_is_default": chosen == DEFAULT.name}
    if arguments.out:
        publish(arguments.out, CHOICE, figures, targets=TARGETS, canvas_px=arguments.size, candidates=judged)
    return figures


def strange_features(arguments: argparse.Namespace, base: BaseSam, work: Path, folder: Path) -> Tensor:
    """All taps of some photographs of the train split; of --quick procedural scenes."""
    if arguments.quick:
        return scene_features(base, torch.device("cpu"), FeatureConfig(taps=TAPS))
    kept = folder / f"{STRANGERS}.npz"
    if not kept.exists():
        rgb = (one.rgb for one in photographs(arguments.data, work, "train"))
        np.savez(kept, open=encode_pictures(base, rgb, torch.device("cpu"), FeatureConfig(taps=TAPS)).numpy())
    with np.load(kept) as found:
        return torch.from_numpy(found["open"])


def photographs(source: Path, work: Path, split: Split) -> list[Shown]:
    """Images of no domain, at most MOST_STRANGERS; none if the set is not there."""
    if not (source / STRANGERS).is_dir():
        return []
    found = images_of(STRANGERS, imported(source / STRANGERS, STRANGERS, work), split)
    some = sorted(np.random.default_rng(0).permutation(len(found))[:MOST_STRANGERS].tolist())
    return [found[number] for number in some]


def refuse_other_than_chosen(arguments: argparse.Namespace, figures: Figures) -> None:
    """Test is for the figures of the choice alone."""
    chosen = figures.get("chosen")
    if chosen is None:
        files = sorted(arguments.out.glob(f"*-{CHOICE}.json")) if arguments.out else []
        if not files:
            raise SystemExit(f"no *-{CHOICE}.json in --out: run --stage choose first, and commit what it writes")
        chosen = json.loads(files[-1].read_text(encoding="utf-8"))["figures"]["chosen"]
    if chosen != DEFAULT.name and not arguments.quick:
        raise SystemExit(
            f"the package ships {DEFAULT.name!r}, and {chosen!r} was chosen; change FeatureConfig and "
            "infosam.routing.fitting before anything is looked at on test"
        )


def measure(
    arguments: argparse.Namespace, sources: Mapping[str, Path], data: Mapping[str, Path], work: Path, console: Console
) -> tuple[Figures, Figures]:
    """The figures on test, and what stands beside them in the file."""
    config = settings(arguments)
    bundles = {name: adapter(config, name, folder, work, console) for name, folder in data.items()}
    joint = adapter(config, JOINT, joined(sources, work), work, console)
    images = [one for name, folder in data.items() for one in images_of(name, folder, "test")]
    strangers = [] if arguments.quick else photographs(arguments.data, work, "test")
    done = work / "figures" / state_of([*bundles.values(), joint])
    found = kept(done / "dice.json", partial(against_others, bundles, joint, images))
    disturbed = {how: kept(done / f"{how}.json", partial(under, bundles, images, how)) for how in DISTURBED}
    found |= summary(disturbed)
    beside = {name: found.pop(name) for name in BESIDE} | {"disturbed": disturbed}
    if strangers:
        beside["photographs"] = kept(done / "photographs.json", partial(open_set, bundles, images, strangers))
    console.print(dice_table(beside["dice_per_domain"]))
    return found, {**beside, "adapter": config.model_dump(mode="json")}


def cost(arguments: argparse.Namespace, data: Mapping[str, Path], work: Path, console: Console) -> Figures:
    """Pools of several sizes; then the median time of one image by name and chosen, for adapters that begin at several
    blocks. The router looks at what enters block 2: what an adapter changes before that is computed a second time."""
    name, folder = next(reversed(data.items()))
    picture = images_of(name, folder, "val")[0].rgb
    figures: Figures = {}
    for block in FIRST_BLOCKS:
        config = settings(arguments, first_block=block)
        short = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})})
        bundle = adapter(short, name, folder, work / f"from-block-{block}", console)
        sizes = arguments.adapters if block == USUAL_BLOCK else [1]
        found = measure_speed(bundle, sizes, picture, arguments.requests)
        figures |= found if block == USUAL_BLOCK else {}
        smallest = min(sizes)
        times = {how: found[f"median_ms_{how}_{smallest}"] for how in ("single", "auto")}
        figures |= {f"median_ms_{how}_from_block_{block}": time for how, time in times.items()}
    return figures


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


def settings(arguments: argparse.Namespace, first_block: int = USUAL_BLOCK) -> RunConfig:
    """LoRA in the upper blocks, without information terms: short, and the same for all."""
    return validate(
        RunConfig,
        {
            "model": {"image_px": arguments.size},
            "peft": {"kind": "lora", "rank": 4, "first_block": first_block},
            "info": {"compression": 0, "distillation": 0},
            "train": {"epochs": arguments.epochs, "batch_size": 4, "device": "cpu"},
            "optim": {"lr": 1e-3},
        },
        "routing benchmark",
    )


def adapter(config: RunConfig, name: str, data: Path, work: Path, console: Console) -> Path:
    """The bundle of one domain, made unless it is there: if it alone is removed, from the checkpoints that are left."""
    run = work / "adapters" / name
    if not (run / "bundle").exists():
        materials = load_materials(config.model, data, device="cpu", baselines=False)
        for report in train(config, materials, checkpoint_dir=run / "checkpoints"):
            console.print(f"{name}: epoch {report.epoch}, val Dice {report.values['val/dice']:.3f}", style="dim")
        checkpoint = best_checkpoint(run / "checkpoints")
        assert checkpoint is not None
        export_bundle(checkpoint, materials, run / "bundle", card={"domain": name})
    return run / "bundle"


if __name__ == "__main__":
    main()
