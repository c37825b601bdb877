"""The part of `routing.py` about cost: memory of pools, time of a swap and of the router, latency of streams."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infosam.bundle import CARD_FILE, PEFT_FOLDER, read_bundle
from infosam.checkpoint import save_json, save_tensors
from infosam.data.card import AUTO
from infosam.peft.config import AdapterConfig, LoraConfig, PeftConfig
from infosam.peft.inject import METHODS
from infosam.routing.pool import AdapterPool
from infosam.sam.weights import load_base
from infosam.student import REST_FILE, build_student

SWAPS = 200


def measure_speed(bundle: Path, sizes: Sequence[int], picture: NDArray[np.uint8], requests: int) -> dict[str, float]:
    """For pools of several sizes, all of copies of one bundle, each with weights of its own in memory; then for one of
    up to 72 bundles of a configuration each, which is what sweeps with the default search space end in.

    bundle_mb: the bundle's files. mb_per_adapter: growth of the process per adapter, what the router keeps included.
    swap_ms: median time to put another adapter on. p95, median: of single images one after the other, all of one
    domain, of domains at random, and chosen by the router; mixed_to_single: ratio of the first two p95. The figures
    of the last pool end in mixed_configs."""
    figures: dict[str, float] = {}
    pool = AdapterPool.from_folders({"d0": bundle}, device="cpu")
    figures["bundle_mb"] = files_mb(bundle)
    for size in sizes:
        grown = filled(pool, {f"d{number}": bundle for number in range(len(pool.domains()), size)}, picture)
        if grown is not None:
            figures[f"mb_per_adapter_{size}"] = grown
        figures |= streams(pool, [f"d{number}" for number in range(size)], picture, requests, str(size))
    with tempfile.TemporaryDirectory() as folder:
        others = variants(bundle, searched()[: max(sizes)], Path(folder))
        # The first pool stays: what it would give back would be taken again, and the growth not be seen.
        mixed = AdapterPool.from_folders({"d0": bundle}, device="cpu")
        figures["mixed_configs"] = len(others)
        figures["bundle_mb_mixed_configs"] = round(statistics.mean(files_mb(other) for other in others.values()), 3)
        figures["mb_per_adapter_mixed_configs"] = filled(mixed, others, picture) or 0.0
        figures |= streams(mixed, list(others), picture, requests, "mixed_configs")
    return figures


def filled(pool: AdapterPool, bundles: Mapping[str, Path], picture: NDArray[np.uint8]) -> float | None:
    """Adds bundles; growth of the process for each, in MB."""
    pool.predict_batch([picture] * 2, None, ["d0", AUTO])  # whatever is made on first use is there before and after
    before = resident_bytes()
    for name, bundle in bundles.items():
        pool.add(name, bundle)
    pool.predict_batch([picture] * 2, None, ["d0", AUTO])
    return round((resident_bytes() - before) / len(bundles) / 1e6, 3) if bundles else None


def streams(
    pool: AdapterPool, names: Sequence[str], picture: NDArray[np.uint8], requests: int, ending: str
) -> dict[str, float]:
    """Swap, and requests of three kinds that take turns, so that a busy machine slows them alike."""
    figures = {f"swap_ms_{ending}": round(swap_ms(pool, names), 3)}
    asked: dict[str, list[str]] = {
        "single": [names[0]] * requests,
        "mixed": [names[int(one)] for one in np.random.default_rng(0).integers(0, len(names), requests)],
        "auto": [AUTO] * requests,
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(requests):
        for name, stream in asked.items():
            seconds[name].append(timed(lambda one=stream[number]: pool.predict_batch([picture], None, [one])))
    for name, values in seconds.items():
        figures[f"p95_ms_{name}_{ending}"] = round(1000 * float(np.quantile(values, 0.95)), 2)
        figures[f"median_ms_{name}_{ending}"] = round(1000 * statistics.median(values), 2)
    ratio = figures[f"p95_ms_mixed_{ending}"] / figures[f"p95_ms_single_{ending}"]
    return figures | {f"mixed_to_single_{ending}": round(ratio, 3)}


def searched() -> list[PeftConfig]:
    """Every configuration of the default search space that is built differently, both kinds in turn."""
    ranks = [LoraConfig(rank=rank, first_block=3) for rank in range(2, 17)]
    widths = [AdapterConfig(width=width, first_block=3) for width in range(8, 65)]
    pairs = itertools.zip_longest(ranks, widths)
    return [config for pair in pairs for config in pair if config is not None]


def variants(bundle: Path, configs: Sequence[PeftConfig], out: Path) -> dict[str, Path]:
    """Bundles like one of another configuration each, with new weights: what their masks show does not matter here."""
    opened = read_bundle(bundle)
    base = load_base(opened.model())
    made = {}
    for number, peft in enumerate(configs):
        config = opened.config.model_copy(update={"peft": peft})
        student, folder = build_student(base, config), out / f"c{number}"
        shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("peft", "card.json", REST_FILE))
        files, rest = METHODS[peft.kind].files, student.tensors()
        if files is not None:
            files.save(student.sam, folder / PEFT_FOLDER)
            rest = {name: tensor for name, tensor in rest.items() if not files.owns(name)}
        save_tensors(rest, folder / REST_FILE)
        digests = {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.rglob("*")
            if file.is_file()
        }
        changed = {"config": config.model_dump(mode="json"), "trainable": student.trainable, "files": digests}
        save_json(opened.card | changed, folder / CARD_FILE)
        made[f"c{number}"] = folder
    return made


def files_mb(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 3)


def swap_ms(pool: AdapterPool, names: Sequence[str]) -> float:
    """Median time from one adapter worn to the next one worn, in milliseconds."""
    held = [pool._held[name] for name in names]  # the pool's own parts: a prediction around it would take far longer
    seconds = []
    for number in range(SWAPS):
        began = time.perf_counter()
        with pool._shelf.worn(held[number % len(held)]):
            seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
