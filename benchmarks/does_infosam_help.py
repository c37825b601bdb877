"""Do the information terms help? LoRA and adapter with and without them, beside feature distillation and decoder only.

    python benchmarks/does_infosam_help.py [--data FOLDER] [--work FOLDER] [--out FOLDER] [--hours H]
                                           [--domains D ...] [--arms A ...] [--known WORK] [--quick] [a.b=c ...]
    python benchmarks/does_infosam_help.py --recompute [--out FOLDER]

Domains lie in --data (default: INFOSAM_TEST_DATA) as folders of images, masks and lists. In each, every arm is trained
with the same learning rates under seed 0. Validation (Dice with a box) chooses one, and with it the arm trains under
three seeds. Each of these runs is scored on test once, at its best epoch on validation, with the exact box and with no
prompt (strict protocol). Pairs with and without information terms whose interval of the gain with a box holds 0 get up
to --most-seeds. A gain is the difference per image of scores averaged over seeds, with its bootstrap interval over
images and seeds. --recompute makes gains, intervals and pictures anew from the published scores of single images, also
those under other settings, without training.

Each finished run is a file in --work and is not trained again: stop it when you like (or after --hours) and start it
again. Two of them may work on different --domains at once, and one over all of them sums up. --out gets figures
(dated JSON), scores of single images and metrics of every epoch (Parquet), and pictures (SVG): gains, and the bits in
the relations by epoch.

A canvas of 128 px and 10 epochs are there to keep it affordable. Settings `a.b=c` change all arms, `info.*` only those
with information terms; such a result has them in its name, and --known names the --work of another comparison whose
runs of arms that are the same there are taken over. --quick trains all arms on a made-up domain for one epoch. The last
line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arm_gains import ArmScores, write_epochs
from arm_runs import ArmRuns, Domain
from arm_study import Study
from compared_arms import ARMS, PAIRS, POOLED, QUESTION, RATES, Job, Pair, config_of
from gain_figure import draw_gains
from information_curves import draw_information, information_curves
from results_file import newest, publish
from rich.console import Console
from rich.table import Table
from shared_sets import DOMAINS, default_folder, imported, made_up

from infosam.config import ModelConfig
from infosam.errors import UserError
from infosam.evaluation import PROMPTS, PROTOCOL

NAME, EPOCHS_OF = "does-infosam-help", "-epochs"
IMAGE_PX, EPOCHS, SEEDS, MOST_SEEDS = 128, 10, 3, 5
PRECISION = "bf16"
"""Not `auto`: runs may be made on several machines, and what their processors have must not come between the arms."""
QUICK_PX, QUICK_EPOCHS, QUICK_SEEDS = 64, 1, 2


def main() -> None:
    arguments = _arguments()
    if arguments.recompute:
        print(json.dumps({name: figures["gains"] for name, figures in recompute(arguments.out).items()}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        try:
            study = _study(arguments, (arguments.work or Path(scratch)).absolute())
        except UserError as error:
            raise SystemExit(str(error)) from None
        print(study.estimate(), flush=True)
        began = time.monotonic()
        if study.carry_out(lambda: time.monotonic() - began > arguments.hours * 3600):
            show(study)
            if arguments.out is not None:
                write(study, arguments.out, name_of(arguments.overrides))
            figures = figures_of(study)
        else:
            print("not finished: start it again with the same --work")
            figures = {"complete": False, "runs_left": len(study.left())}
    print(json.dumps(figures))


def name_of(overrides: Sequence[str]) -> str:
    """Of the result under these settings."""
    return "-".join([NAME, *(re.sub(r"[^\w.]+", "-", one) for one in overrides)])


def figures_of(study: Study) -> dict[str, Any]:
    """What is published."""
    scores, done = study.scores(), study.trained()
    domains = {}
    for domain in study.domains:
        arms = {arm: scores.means(domain.name, arm) for arm in study.arms if scores.runs(domain.name, arm)}
        domains[domain.name] = {**study.runs.untuned(domain), **arms}
    return {
        "complete": True,
        "protocol": PROTOCOL,
        "settings": study.settings,
        "runs": len(done),
        "hours": round(sum(run.seconds for run in done) / 3600, 2),
        "domains": domains,
        "gains": {str(pair): _gains(scores, pair) for pair in study.pairs(PAIRS)},
        "information": _information(study),
    }


def write(study: Study, out: Path, name: str) -> None:
    """Figures, scores of single images, metrics of epochs and the picture."""
    settings, scores = {"settings": json.dumps(study.settings), "protocol": PROTOCOL}, study.scores()
    scores.write(out / f"{name}.parquet", settings)
    write_epochs(study.trained(), out / f"{name}{EPOCHS_OF}.parquet", settings)
    draw_gains(scores, study.pairs(QUESTION), out / f"{name}.svg")
    figures = figures_of(study)
    for arm in dict.fromkeys(arm for arms in figures["information"].values() for arm in arms):
        draw_information(figures["information"], arm, out / f"{name}-{arm.replace('+', '-')}-bits.svg")
    publish(out, name, figures)


def recompute(out: Path) -> dict[str, dict[str, Any]]:
    """Publishes all comparisons of a folder again with gains made anew from their scores; their figures by name.

    `runs` of a new file says where the runs come from."""
    made = {}
    for file in sorted(out.glob(f"{NAME}*.parquet")):
        name = file.stem
        found = newest(out, name)
        if found is None or name.endswith(EPOCHS_OF):
            continue
        scores = ArmScores.read(file)
        pairs = [pair for pair in PAIRS if str(pair) in found["figures"]["gains"]]
        figures = {**found["figures"], "gains": {str(pair): _gains(scores, pair) for pair in pairs}}
        runs = found.get("runs") or {key: found[key] for key in ("command", "at", "device")}
        draw_gains(scores, [pair for pair in pairs if pair in QUESTION], out / f"{name}.svg")
        publish(out, name, figures, runs={**runs, "commits": scores.commits})
        made[name] = figures
    return made


def show(study: Study) -> None:
    """Prints the tables."""
    console, figures = Console(), figures_of(study)
    names = [domain.name for domain in study.domains]
    for prompt in PROMPTS:
        table = Table("arm", *names, title=f"mean test Dice, prompt {prompt}", title_justify="left")
        for arm in ("zero_shot", "trivial", *study.arms):
            table.add_row(arm, *(_score_cell(figures["domains"][name].get(arm), prompt) for name in names))
        console.print(table)
        table = Table("gain in points", *names, POOLED, title=f"prompt {prompt}", title_justify="left")
        for pair in study.pairs(PAIRS):
            found = figures["gains"][str(pair)][prompt]
            table.add_row(str(pair), *(_gain_cell(found.get(name)) for name in (*names, POOLED)))
        console.print(table)
    note = f"{PROTOCOL}; in brackets: 95 % bootstrap interval over images and seeds; x: seeds"
    console.print(note, highlight=False, soft_wrap=True)


def _gains(scores: ArmScores, pair: Pair) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prompt in PROMPTS:
        gains = {domain: scores.gain(pair, prompt, domain) for domain in scores.domains}
        gains[POOLED] = scores.pooled(pair, prompt)
        found[prompt] = {where: gain.figures() for where, gain in gains.items() if gain is not None}
    return found


def _information(study: Study) -> dict[str, Any]:
    """Curves of the runs that were scored on test, by domain and arm."""
    found: dict[str, Any] = {}
    for domain in study.domains:
        for arm in study.arms:
            jobs = {run.job for run in study.scores().runs(domain.name, arm)}
            curves = information_curves([run for run in study.trained() if run.job in jobs], domain.name, arm)
            if curves is not None:
                found.setdefault(domain.name, {})[arm] = curves
    return found


def _score_cell(means: dict[str, Any] | None, prompt: str) -> str:
    if means is None:
        return "diverged"
    spread = means.get(f"test/{prompt}/dice_sd")
    return f"{means[f'test/{prompt}/dice']:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


def _gain_cell(gain: dict[str, Any] | None) -> str:
    if gain is None:
        return ""
    return f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}] x{gain['seeds']}"


def _study(arguments: argparse.Namespace, work: Path) -> Study:
    quick = arguments.quick
    common = {
        "model": {"image_px": QUICK_PX if quick else IMAGE_PX},
        "train": {"epochs": QUICK_EPOCHS if quick else EPOCHS, "device": "cpu", "precision": PRECISION},
    }
    rates = RATES[:2] if quick else RATES
    settings = {"common": common, "overrides": arguments.overrides, "rates": list(rates)}
    configs = [config_of(Job("any", arm, rates[0], 0), common, arguments.overrides) for arm in arguments.arms]
    model: ModelConfig = configs[0].model
    if quick:
        folders = made_up(work, image_px=QUICK_PX, test=6)
    else:
        folders = imported(arguments.data, arguments.domains, work)
    runs = ArmRuns(work / "arms", settings)
    if arguments.known is not None:
        runs.take_over(arguments.known / "arms")
    return Study(
        domains=[Domain(name, folder, model) for name, folder in folders.items()],
        arms=arguments.arms,
        rates=rates,
        epochs=configs[0].train.epochs,
        seeds=QUICK_SEEDS if quick else SEEDS,
        most_seeds=QUICK_SEEDS if quick else max(SEEDS, arguments.most_seeds),
        settings=settings,
        runs=runs,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings of all arms")
    parser.add_argument("--data", type=Path, default=default_folder())
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--work", type=Path, help="of data, runs and scores; default: infosam-runs/does-infosam-help")
    parser.add_argument("--out", type=Path, default=None, help="default: results, for all domains")
    parser.add_argument("--known", type=Path, help="--work of an earlier comparison under other settings")
    parser.add_argument("--hours", type=float, default=1000.0, help="start no run after so long")
    parser.add_argument("--most-seeds", type=int, default=MOST_SEEDS)
    parser.add_argument("--recompute", action="store_true", help="gains from published scores; trains nothing")
    parser.add_argument("--quick", action="store_true", help="all arms on a made-up domain")
    arguments = parser.parse_intermixed_args(sys.argv[1:])
    if arguments.work is None and not arguments.quick:
        arguments.work = Path("infosam-runs") / name_of(arguments.overrides)
    if arguments.out is None and not arguments.quick and (arguments.recompute or {*arguments.domains} >= {*DOMAINS}):
        arguments.out = Path(__file__).parent / "results"
    return arguments


if __name__ == "__main__":
    main()
