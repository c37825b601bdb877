"""Images per second of `Predictor.predict_batch` against segment_anything's own `SamPredictor`, image by image.

    python benchmarks/inference.py [--arch vit_nano] [--size N] [--device cpu|cuda] [--quick]
    python benchmarks/inference.py --arch vit_b --size 512 --images 8

Both sides have the same weights (random ones for the official sizes: speed does not depend on them), the same
procedural pictures, a third larger than the canvas, and the same boxes as prompts. From picture in memory to mask at
the picture's size is counted, in float32. They take turns within one run, each turn over all pictures; the median
counts. That both find the same is shown by the IoU of their masks: SamPredictor scales the corners of a box, ours its
pixels, so a mask may differ at its edge. The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from results_file import publish
from segment_anything import SamPredictor

from infosam import metrics
from infosam.config import ModelConfig
from infosam.data.prompts import box_of
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.attention import restore_attention
from infosam.sam.weights import BaseSam, load_base
from infosam.synthetic.domains import spores

SEED = 0
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Side = Callable[[], list[Mask]]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    pictures, boxes = make_pictures(arguments)
    base = make_model(arguments)
    sides = {
        "reference": reference(base, pictures, boxes, arguments.device),
        "ours": ours(base, pictures, boxes, arguments.device, arguments.batch),
    }
    agreement = [
        float(metrics.iou(torch.from_numpy(mine), torch.from_numpy(theirs)))
        for mine, theirs in zip(sides["ours"](), sides["reference"](), strict=True)
    ]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - began)
    rates = {name: len(pictures) / statistics.median(values) for name, values in seconds.items()}
    print(
        f"{arguments.arch} on {arguments.device}, {arguments.threads} threads: {len(pictures)} pictures of "
        f"{pictures[0].shape[1]} px, batches of {arguments.batch}, {arguments.rounds} turns each, seed {SEED}"
    )
    figures = {f"images_per_s_{name}": round(rate, 3) for name, rate in rates.items()}
    figures["ratio_images_per_s"] = round(rates["ours"] / rates["reference"], 3)
    figures["iou_mean"], figures["iou_least"] = round(statistics.mean(agreement), 4), round(min(agreement), 4)
    if arguments.out:
        publish(arguments.out, f"inference-{arguments.arch}-{arguments.device}", figures, device=arguments.device)
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=("vit_nano", "vit_b", "vit_l", "vit_h"), default="vit_nano")
    parser.add_argument("--size", type=int, help="side of the canvas in px; default: the architecture's own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4, help="pictures that ours takes together")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="a small canvas and few pictures, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for a dated file of the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.images, arguments.rounds = 96, 6, 1
    return arguments


def make_pictures(arguments: argparse.Namespace) -> tuple[list[Picture], list[ImagePrompt]]:
    side_px = architecture(arguments.arch, arguments.size).image_px * 4 // 3
    made = [spores(side_px, np.random.default_rng([SEED, number])) for number in range(arguments.images)]
    corners = [box_of(torch.from_numpy(mask)).tolist() for _, mask in made]
    return [picture for picture, _ in made], [ImagePrompt(box=(x0, y0, x1, y1)) for x0, y0, x1, y1 in corners]


def make_model(arguments: argparse.Namespace) -> BaseSam:
    """Ours for vit_nano, else random weights of the official size."""
    if arguments.arch == "vit_nano":
        return load_base(ModelConfig(image_px=arguments.size))
    spec = architecture(arguments.arch, arguments.size)
    torch.manual_seed(SEED)
    return BaseSam(sam=build_sam(spec).requires_grad_(False), spec=spec, sha256="random")


def reference(base: BaseSam, pictures: list[Picture], prompts: list[ImagePrompt], device: str) -> Side:
    """As the package's own notebook: a picture is set, then a box is asked for."""
    sam = copy.deepcopy(base.sam).to(device)
    restore_attention(sam)
    predictor = SamPredictor(sam)

    def run() -> list[Mask]:
        found = []
        for picture, prompt in zip(pictures, prompts, strict=True):
            predictor.set_image(picture)
            masks, _, _ = predictor.predict(box=np.array(prompt.box), multimask_output=False)
            found.append(masks[0])
        return found

    return run


def ours(base: BaseSam, pictures: list[Picture], prompts: list[ImagePrompt], device: str, batch: int) -> Side:
    predictor = Predictor(base, device=device)

    def run() -> list[Mask]:
        found: list[Mask] = []
        for start in range(0, len(pictures), batch):
            found += predictor.predict_batch(pictures[start : start + batch], prompts[start : start + batch])
        return found

    return run


if __name__ == "__main__":
    main()
