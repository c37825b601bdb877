"""The part of `routing.py` about right and wrong on test: Dice against others, disturbances, and domains left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from routing_choice import DISTURBED

from infosam import metrics
from infosam.data.card import AUTO
from infosam.data.prompts import box_of
from infosam.data.store import open_dataset
from infosam.prompt_files import ImagePrompt
from infosam.routing.pool import AdapterPool, Segmented

JOINT = "all_domains"
HARM = 0.01
"""Dice that an image must lose against frozen SAM to count as harmed."""
TOGETHER = 4
NOBODY = "none"

Figures = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """One test image."""

    domain: str
    rgb: NDArray[np.uint8]
    truth: NDArray[np.bool_]

    @property
    def box(self) -> ImagePrompt | None:
        if not self.truth.any():
            return None
        x0, y0, x1, y1 = box_of(torch.from_numpy(self.truth)).tolist()
        return ImagePrompt(box=(x0, y0, x1, y1))


def test_images(data: Mapping[str, Path]) -> list[Shown]:
    images = []
    for name, folder in data.items():
        store = open_dataset(folder)
        for row in range(store.rows("test")):
            sample = store.read("test", row)
            images.append(Shown(name, sample.image, sample.mask))
    return images


def against_others(bundles: Mapping[str, Path], joint: Path, images: Sequence[Shown]) -> Figures:
    """Dice of router, oracle, frozen SAM and the joint adapter: means over domains, and per domain."""
    pool = AdapterPool.from_folders(bundles, device="cpu")
    both = AdapterPool.from_folders({JOINT: joint}, device="cpu")
    asked: Mapping[str, tuple[AdapterPool, list[str | None]]] = {
        "router": (pool, [AUTO] * len(images)),
        "oracle": (pool, [one.domain for one in images]),
        "base": (pool, [None] * len(images)),
        "joint": (both, [JOINT] * len(images)),
    }
    figures: Figures = {"dice_per_domain": {name: {} for name in bundles}}
    for prompt in ("box", "none"):
        found = {who: segmented(*how, images, with_box=prompt == "box") for who, how in asked.items()}
        for domain, per_prompt in figures["dice_per_domain"].items():
            rows = [row for row, one in enumerate(images) if one.domain == domain]
            per_prompt[prompt] = {who: mean_dice(made, images, rows) for who, made in found.items()}
        for who in asked:
            means = [one[prompt][who] for one in figures["dice_per_domain"].values()]
            figures[f"dice_{who}_{prompt}"] = round(float(np.mean(means)), 4)
        if prompt == "box":
            pairs = [(made.domain, one.domain) for made, one in zip(found["router"], images, strict=True)]
            figures |= {
                "domain_accuracy": share(made == true for made, true in pairs),
                "abstained": share(made is None for made, _ in pairs),
                "wrong_adapter": share(made not in (None, true) for made, true in pairs),
                "mistaken": tally(pairs),
            }
    return figures


def robustness(bundles: Mapping[str, Path], images: Sequence[Shown]) -> Figures:
    """Accuracy under each disturbance; abstentions count as wrong, wrong adapters stand beside."""
    pool = AdapterPool.from_folders(bundles, device="cpu")
    figures: Figures = {"mistaken_disturbed": {}}
    for name, disturb in DISTURBED.items():
        if name == "clean":
            continue
        changed = [
            Shown(one.domain, disturb(one.rgb, np.random.default_rng([2, row])), one.truth)
            for row, one in enumerate(images)
        ]
        found = segmented(pool, [AUTO] * len(images), changed, with_box=False)
        pairs = [(made.domain, one.domain) for made, one in zip(found, images, strict=True)]
        figures[f"accuracy_{name}"] = share(made == true for made, true in pairs)
        figures[f"wrong_{name}"] = share(made not in (None, true) for made, true in pairs)
        figures["mistaken_disturbed"][name] = tally(pairs)
    return figures


def left_out(bundles: Mapping[str, Path], images: Sequence[Shown]) -> Figures:
    """Each domain's test images in a pool without it: how many get an adapter, and how many are worse off for it.

    `at_95`: all thresholds scaled alike so that 95 % of the test images of the pool's domains are accepted."""
    accepted: list[bool] = []
    accepted_95: list[bool] = []
    lost: list[float] = []
    takers: list[tuple[str | None, str]] = []
    for name in bundles:
        pool = AdapterPool.from_folders({other: path for other, path in bundles.items() if other != name}, device="cpu")
        foreign = [one for one in images if one.domain == name]
        routed = segmented(pool, [AUTO] * len(foreign), foreign, with_box=True)
        plain = segmented(pool, [None] * len(foreign), foreign, with_box=True)
        own = [one for one in images if one.domain != name]
        inside = [relative(one) for one in segmented(pool, [AUTO] * len(own), own, with_box=False)]
        limit = float(np.quantile(inside, 0.95))
        accepted += [one.domain is not None for one in routed]
        accepted_95 += [relative(one) <= limit for one in routed]
        takers += [(one.domain, name) for one in routed if one.domain is not None]
        lost += [
            dice(before.mask, one.truth) - dice(after.mask, one.truth)
            for one, after, before in zip(foreign, routed, plain, strict=True)
        ]
    return {
        "false_accept": share(accepted),
        "false_accept_at_95": share(accepted_95),
        "harm_rate": share(loss > HARM for loss in lost),
        "gain_rate": share(loss < -HARM for loss in lost),
        "left_out_dice_gain": round(-float(np.mean(lost)), 4),
        "taken_by": tally(takers),
    }


def segmented(
    pool: AdapterPool, domains: Sequence[str | None], images: Sequence[Shown], *, with_box: bool
) -> list[Segmented]:
    found: list[Segmented] = []
    for start in range(0, len(images), TOGETHER):
        some = images[start : start + TOGETHER]
        prompts = [one.box if with_box else None for one in some]
        found += pool.predict_batch([one.rgb for one in some], prompts, domains[start : start + TOGETHER])
    return found


def tally(pairs: Iterable[tuple[str | None, str]]) -> dict[str, int]:
    """How many images of which domain went to which other one, or to none."""
    counts = Counter(f"{true} to {made or NOBODY}" for made, true in pairs if made != true)
    return dict(counts.most_common())


def relative(made: Segmented) -> float:
    assert made.score is not None
    assert made.threshold is not None
    return made.score / made.threshold


def mean_dice(made: Sequence[Segmented], images: Sequence[Shown], rows: Sequence[int]) -> float:
    return round(float(np.mean([dice(made[row].mask, images[row].truth) for row in rows])), 4)


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(metrics.dice(torch.from_numpy(mask), torch.from_numpy(truth)))


def share(values: Iterable[bool]) -> float:
    return round(float(np.mean(list(values))), 4)
