"""One training step of InfoSAM: ours against the way the released trainer takes it (`reference_step.py`).

    python benchmarks/train_step.py --arch vit_nano --peft lora                 # all blocks adapted
    python benchmarks/train_step.py --arch vit_nano --peft lora --first-block 3 # the lower half is frozen
    python benchmarks/train_step.py --arch vit_b --size 512 --batch 2
    python benchmarks/train_step.py --arch vit_b --device cuda --out benchmarks/results

Both sides train on the same procedural images from the same weights (random ones for the official sizes: speed does
not depend on them), with exact boxes as prompts. They take turns within one run. The teacher's encodings of ours are
computed before the clock starts, as in every epoch but the first. Memory is measured in a process for each side.
The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from reference_step import ReferenceStep
from results_file import publish
from segment_anything.modeling import Sam
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from infosam.config import ModelConfig, RunConfig
from infosam.data.dataset import SegmentationDataset, collate
from infosam.data.store import import_dataset, open_dataset
from infosam.frozen import FrozenEncodings
from infosam.materials import Materials
from infosam.optimisation import descend, learning_rate, make_optimizer
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.attention import restore_attention, swap_attention
from infosam.sam.weights import BaseSam, load_base
from infosam.stored import encodings_of
from infosam.student import build_student
from infosam.synthetic import write_demo_domain
from infosam.training import train_step, uses_bf16

BATCHES = 4
CURVE_STEPS = 20
Step = Callable[[int], float]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        print(json.dumps(peak_memory(arguments, load_materials(arguments, arguments.folder))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(arguments, folder)
        materials = load_materials(arguments, folder)
        figures = measure(arguments, materials)
        losses = curves(arguments, materials) if arguments.curves else {}
        figures |= deviations(losses) | memory(arguments, folder)
    if arguments.out:
        name = f"train_step-{arguments.arch}-{arguments.device}-{arguments.peft}-from-{arguments.first_block}"
        publish(arguments.out, name, figures, device=arguments.device, losses=losses)
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=("vit_nano", "vit_b", "vit_l", "vit_h"), default="vit_nano")
    parser.add_argument("--size", type=int, help="side of the canvas in px; default: the architecture's own")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peft", choices=("lora", "adapter"), default="lora")
    parser.add_argument("--first-block", type=int, default=0, help="blocks below it stay frozen")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto", help="of ours")
    parser.add_argument("--cache", choices=("float32", "float16", "bfloat16"), default="float16", help="of ours")
    parser.add_argument("--compile", action="store_true", help="compile our blocks")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side")
    parser.add_argument("--curves", action=argparse.BooleanOptionalAction, default=True, help="loss curves of 20 steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="a small canvas and few steps, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for a dated file of the figures")
    parser.add_argument("--memory-of", choices=("reference", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.batch, arguments.rounds, arguments.curves = 64, 2, 2, True
    return arguments


def configuration(arguments: argparse.Namespace, **changed: str) -> RunConfig:
    """The released recipe; `changed` are precision and cache of another variant."""
    peft: dict[str, Any] = {"kind": arguments.peft, "first_block": arguments.first_block}
    return RunConfig.model_validate(
        {
            "model": {"name": arguments.arch, "image_px": arguments.size},
            "peft": peft | ({"rank": 4} if arguments.peft == "lora" else {"ratio": 0.25}),
            "loss": {"structure": "official"},
            "optim": {"name": "adam", "lr": 2e-4, "warmup_fraction": 0.0, "clip_norm": None},
            "prompts": {"box": 1.0, "point": 0.0, "none": 0.0, "box_jitter": 0.0},
            "train": {
                "batch_size": arguments.batch,
                "precision": changed.get("precision", arguments.precision),
                "compile": arguments.compile,
            },
            "cache": {"dtype": changed.get("cache", arguments.cache)},
        }
    )


def make_files(arguments: argparse.Namespace, folder: Path) -> None:
    """A procedural domain, and stores of what frozen encoders make of it, as a sweep makes before its trials."""
    image_px = min(512, architecture(arguments.arch, arguments.size).image_px)
    write_demo_domain(folder / "images", seed=0, train=BATCHES * arguments.batch, val=1, test=1, image_px=image_px)
    import_dataset(folder / "images", domain="spores", out=folder / "data", seed=0)
    materials = load_materials(arguments, folder)
    for encoding in encodings_of(configuration(arguments)):
        materials.content(encoding).build(folder / "stores")


def load_materials(arguments: argparse.Namespace, folder: Path) -> Materials:
    """What `make_files` made, and weights: ours for vit_nano, else random ones of the official size."""
    spec = architecture(arguments.arch, arguments.size)
    if arguments.arch == "vit_nano":
        base = load_base(ModelConfig(image_px=arguments.size))
    else:
        torch.manual_seed(0)
        base = BaseSam(sam=build_sam(spec).requires_grad_(False), spec=spec, sha256="random")
    device = torch.device(arguments.device)
    base.sam.to(device)
    store = open_dataset(folder / "data")
    splits = {split: SegmentationDataset(store, split, spec.image_px) for split in ("train", "val")}
    encodings = FrozenEncodings(base, splits["train"], device, folder / "stores")
    return Materials(
        base=base,
        teacher=base,
        base_encodings=encodings,
        teacher_encodings=encodings,
        train_set=splits["train"],
        val_set=splits["val"],
        device=device,
        zero_shot={},
        trivial={},
    )


def reference(arguments: argparse.Namespace, materials: Materials) -> Step:
    config = configuration(arguments)
    side = ReferenceStep(materials.base, config, materials.device)
    optimizer = make_optimizer(side.student, config.optim)

    def step(number: int) -> float:
        rows = _rows(number, arguments.batch)
        batch = collate([materials.train_set[row] for row in rows]).to(materials.device)
        _set_rate(optimizer, config, number)
        optimizer.zero_grad(set_to_none=True)
        loss = side.loss(batch)
        loss.backward()
        descend(optimizer, None)
        return loss.item()

    return step


def ours(
    arguments: argparse.Namespace,
    materials: Materials,
    *,
    attention: Callable[[Sam], None] = swap_attention,
    **changed: str,
) -> Step:
    config = configuration(arguments, **changed)
    student = build_student(materials.base, config)
    attention(student.sam)
    optimizer = make_optimizer(student, config.optim)
    student.sam.train()

    def step(number: int) -> float:
        _set_rate(optimizer, config, number)
        units = [(row,) for row in _rows(number, arguments.batch)]
        return train_step(config, materials, student, optimizer, units, 0, number)["loss/total"]

    return step


def measure(arguments: argparse.Namespace, materials: Materials) -> dict[str, float]:
    """Speed of both sides and of a large matrix product, in turn, and the share of it that a step makes use of."""
    sides = {"reference": reference(arguments, materials), "ours": ours(arguments, materials)}
    runs = sides | {"matrix": matrix_product(arguments, materials.device)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(BATCHES):  # every image once, so that the encodings are known and kernels chosen
        for step in runs.values():
            step(number)
    for number in range(arguments.rounds):
        for name, step in runs.items():
            seconds[name].append(_timed(step, BATCHES + number, materials.device))
    rates = {name: arguments.batch / statistics.median(seconds[name]) for name in sides}
    figures = {f"images_per_s_{name}": rate for name, rate in rates.items()}
    figures["ratio_images_per_s"] = rates["ours"] / rates["reference"]
    flops = model_flops(arguments, materials) / arguments.batch * rates["ours"]
    figures["tflops_ours"] = flops / 1e12
    figures["tflops_matrix"] = 2 * _matrix_side(arguments) ** 3 / min(seconds["matrix"]) / 1e12
    figures["model_flops_utilisation"] = figures["tflops_ours"] / figures["tflops_matrix"]
    return figures


def model_flops(arguments: argparse.Namespace, materials: Materials) -> int:
    """Floating-point operations of one step of ours as the model asks for them: with segment_anything's own attention,
    so without the channels that carry positions, padding, and scores that are computed again on the way back."""
    step = ours(arguments, materials, attention=restore_attention)
    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops()


def matrix_product(arguments: argparse.Namespace, device: torch.device) -> Step:
    """A product of two large matrices in the precision of ours: as fast as the machine gets."""
    side = _matrix_side(arguments)
    dtype = torch.bfloat16 if uses_bf16(configuration(arguments).train, device) else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    product = torch.empty_like(matrix)

    def step(number: int) -> float:
        return float(torch.mm(matrix, matrix, out=product)[0, 0])

    return step


def curves(arguments: argparse.Namespace, materials: Materials) -> dict[str, list[float]]:
    """Losses of 20 steps from the same weights: the reference's and those of ours in several precisions."""
    steps = 4 if arguments.quick else CURVE_STEPS
    variants = {
        "float32": {"precision": "float32", "cache": "float32"},
        "float32_float16_cache": {"precision": "float32", "cache": "float16"},
        "float32_bfloat16_cache": {"precision": "float32", "cache": "bfloat16"},
        "bf16": {"precision": "bf16", "cache": "float16"},
    }
    losses = {"reference": _losses(reference(arguments, materials), steps)}
    return losses | {name: _losses(ours(arguments, materials, **changed), steps) for name, changed in variants.items()}


def deviations(losses: dict[str, list[float]]) -> dict[str, float]:
    """Largest relative deviation of each curve from the reference's."""
    return {
        f"loss_deviation_{name}": max(
            abs(given - wanted) / abs(wanted) for given, wanted in zip(curve, losses["reference"], strict=True)
        )
        for name, curve in losses.items()
        if name != "reference"
    }


def memory(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Most memory of each side in GiB, in a process of its own: of the process beyond what it held before the side was
    made, and of the tensors that come and go within a step. On a CPU the first holds the code of all kernels too.

    `folder` has what `make_files` made, so that no process of a side encodes for its stores."""
    found: dict[str, float] = {}
    for side in ("reference", "ours"):
        command = [sys.executable, *sys.argv, "--memory-of", side, "--folder", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found |= {f"{name}_{side}": gib for name, gib in json.loads(done.stdout.splitlines()[-1]).items()}
    for what in ("memory", "tensors"):
        found[f"ratio_peak_{what}"] = found[f"peak_{what}_gib_ours"] / found[f"peak_{what}_gib_reference"]
    return found


def peak_memory(arguments: argparse.Namespace, materials: Materials) -> dict[str, float]:
    """Of one side, in this process."""
    make = reference if arguments.memory_of == "reference" else ours
    cuda = materials.device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else _resident_bytes("VmRSS")
    if not cuda:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # else the peak is that of loading
    step = make(arguments, materials)
    for number in range(BATCHES + 1):
        step(number)
    most = torch.cuda.max_memory_allocated() if cuda else _resident_bytes("VmHWM")
    tensors = _peak_of_tensors(lambda: step(BATCHES), cuda=cuda)
    return {"peak_memory_gib": (most - before) / 2**30, "peak_tensors_gib": tensors / 2**30}


def _peak_of_tensors(run: Callable[[], float], *, cuda: bool) -> int:
    """Most bytes of tensors while `run` runs, beyond those that are there before."""
    if cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    found: Any = profiler.profiler
    changes = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes))


def _matrix_side(arguments: argparse.Namespace) -> int:
    if arguments.quick:
        return 256
    return 8192 if arguments.device == "cuda" else 4096


def _rows(number: int, batch: int) -> list[int]:
    start = number % BATCHES * batch
    return list(range(start, start + batch))


def _set_rate(optimizer: torch.optim.Optimizer, config: RunConfig, number: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config.optim, number, 1000) * group["share"]


def _losses(step: Step, steps: int) -> list[float]:
    return [step(number) for number in range(steps)]


def _timed(step: Callable[[int], float], number: int, device: torch.device) -> float:
    started = time.perf_counter()
    step(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _resident_bytes(field: str) -> int:
    """`VmRSS`, what this process holds now, or `VmHWM`, the most it has held."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
