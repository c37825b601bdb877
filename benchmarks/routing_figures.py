"""The part of `routing.py` about right and wrong on test: Dice against others, disturbances, and domains left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from routing_masks import Scored, Shown, relative_distances, segmented

from infosam.bootstrap import mean_interval
from infosam.data.card import AUTO
from infosam.routing.pool import AdapterPool

JOINT = "all_domains"
HARM = 0.01
"""Dice that an image must lose against frozen SAM to count as harmed."""
NOBODY = "none"

Figures = dict[str, Any]
Route = str | None


@dataclass(frozen=True)
class Left:
    """Test images of all domains, each in a pool without its own, box prompts."""

    domains: list[str]
    accepted: list[bool]  # at the thresholds as they are
    accepted_95: list[bool]  # all scaled so that 95 % of the other domains' test images are accepted
    takers: list[str]  # the nearest domain, taken or not
    lost: list[float]  # Dice against frozen SAM if it were taken; 0 where it is not accepted at either


def against_others(bundles: Mapping[str, Path], joint: Path, images: Sequence[Shown]) -> Figures:
    """Dice of router, oracle, frozen SAM and the joint adapter: means over domains, and per domain."""
    pool = AdapterPool.from_folders(bundles, device="cpu")
    both = AdapterPool.from_folders({JOINT: joint}, device="cpu")
    figures: Figures = {"dice_per_domain": {name: {} for name in bundles}}
    routes: list[Route] = []
    for prompt in ("box", "none"):
        with_box = prompt == "box"
        scored, joined = Scored(pool, images, with_box=with_box), Scored(both, images, with_box=with_box)
        if not routes:  # by the product's own way, whatever the other figures take
            routes = [one.domain for one in segmented(pool, [AUTO] * len(images), images, with_box=False)]
        found = {
            "router": scored.dice(routes),
            "oracle": scored.dice([one.domain for one in images]),
            "base": scored.dice([None] * len(images)),
            "joint": joined.dice([JOINT] * len(images)),
        }
        for domain, per_prompt in figures["dice_per_domain"].items():
            mine = [row for row, one in enumerate(images) if one.domain == domain]
            per_prompt[prompt] = {who: round(float(np.mean(dice[mine])), 4) for who, dice in found.items()}
        figures |= {f"dice_{who}_{prompt}": balanced(dice, images) for who, dice in found.items()}
        figures[f"below_oracle_{prompt}"] = gap(found["oracle"], found["router"], images)
    return figures | right_and_wrong(routes, images)


def right_and_wrong(routes: Sequence[Route], images: Sequence[Shown]) -> Figures:
    pairs = list(zip(routes, [one.domain for one in images], strict=True))
    return {
        "domain_accuracy": share(made == true for made, true in pairs),
        "domain_accuracy_interval": wilson(made == true for made, true in pairs),
        "abstained": share(made is None for made, _ in pairs),
        "wrong_adapter": share(made not in (None, true) for made, true in pairs),
        "mistaken": tally(pairs),
        "accuracy_per_domain": {
            name: share(made == true for made, true in pairs if true == name)
            for name in dict.fromkeys(one.domain for one in images)
        },
    }


def under(bundles: Mapping[str, Path], images: Sequence[Shown], how: str) -> Figures:
    """Everything under one disturbance, with box prompts. Abstaining counts as wrong."""
    pool = AdapterPool.from_folders(bundles, device="cpu")
    changed = [one.disturbed(how, row) for row, one in enumerate(images)]
    scored = Scored(pool, changed, with_box=True)
    distances = relative_distances(bundles, changed)
    routes = nearest(distances, list(bundles))
    oracle, router = scored.dice([one.domain for one in changed]), scored.dice(routes)
    return {
        **right_and_wrong(routes, changed),
        "dice_oracle": balanced(oracle, changed),
        "dice_router": balanced(router, changed),
        "below_oracle": gap(oracle, router, changed),
        **figures_left(left_out(distances, list(bundles), changed, scored)),
    }


def open_set(bundles: Mapping[str, Path], images: Sequence[Shown], strangers: Sequence[Shown]) -> Figures:
    """How many images of no domain get an adapter, as it is and where 95 % of the test images do."""
    limit = float(np.quantile(relative_distances(bundles, images).min(axis=1), 0.95))
    found = relative_distances(bundles, strangers).min(axis=1)
    return {
        "images": len(found),
        "accepted": share(found <= 1),
        "accepted_interval": wilson(found <= 1),
        "accepted_at_95": share(found <= limit),
    }


def summary(found: Mapping[str, Figures]) -> Figures:
    """The figures that a reader looks for first, flat."""
    clean = found["clean"]
    flat = {name: clean[name] for name in ("false_accept", "false_accept_at_95", "harm_rate", "harm_rate_at_95")}
    flat |= {name: clean[name] for name in ("gain_rate", "left_out_dice_gain")}
    for how, one in found.items():
        if how != "clean":
            flat |= {f"accuracy_{how}": one["domain_accuracy"], f"wrong_{how}": one["wrong_adapter"]}
            flat[f"false_accept_at_95_{how}"] = one["false_accept_at_95"]
    return flat


def nearest(distances: NDArray[np.float64], names: Sequence[str]) -> list[Route]:
    """As `Router` does it."""
    return [
        names[index] if row[index] <= 1 else None
        for row, index in zip(distances, distances.argmin(axis=1).tolist(), strict=True)
    ]


def left_out(distances: NDArray[np.float64], names: Sequence[str], images: Sequence[Shown], scored: Scored) -> Left:
    """Each domain's test images in a pool without it. The 95 % are of the images, disturbed alike, of that pool."""
    domains: list[str] = []
    rows: list[int] = []
    near: list[float] = []
    limits: list[float] = []
    takers: list[str] = []
    of = np.array([one.domain for one in images])
    for left, name in enumerate(names):
        others = np.delete(distances, left, axis=1)
        limit = float(np.quantile(others[of != name].min(axis=1), 0.95))
        for row in np.flatnonzero(of == name).tolist():
            index = int(others[row].argmin())
            domains.append(name)
            rows.append(row)
            near.append(float(others[row, index]))
            limits.append(limit)
            takers.append(names[index + (index >= left)])
    accepted = [one <= 1 for one in near]
    accepted_95 = [one <= limit for one, limit in zip(near, limits, strict=True)]
    either = [one or two for one, two in zip(accepted, accepted_95, strict=True)]
    taken: list[Route] = [taker if one else None for taker, one in zip(takers, either, strict=True)]
    lost = scored.dice([None] * len(rows), rows) - scored.dice(taken, rows)
    return Left(domains, accepted, accepted_95, takers, lost.tolist())


def figures_left(left: Left) -> Figures:
    """harm and gain: shares of all images that are worse or better than with frozen SAM by more than HARM."""
    now = np.where(left.accepted, left.lost, 0)
    at_95 = np.where(left.accepted_95, left.lost, 0)
    return {
        "false_accept": share(left.accepted),
        "false_accept_interval": wilson(left.accepted),
        "false_accept_at_95": share(left.accepted_95),
        "false_accept_at_95_interval": wilson(left.accepted_95),
        "harm_rate": share(now > HARM),
        "harm_rate_interval": wilson(now > HARM),
        "harm_rate_at_95": share(at_95 > HARM),
        "harm_rate_at_95_interval": wilson(at_95 > HARM),
        "gain_rate": share(now < -HARM),
        "left_out_dice_gain": round(-float(now.mean()), 4),
        "taken_by": tally(
            (taker, name) for taker, name, one in zip(left.takers, left.domains, left.accepted, strict=True) if one
        ),
        "false_accept_per_domain": {
            name: [
                share(one for one, of in zip(values, left.domains, strict=True) if of == name)
                for values in (left.accepted, left.accepted_95)
            ]
            for name in dict.fromkeys(left.domains)
        },
    }


# ---------------------------------------------------------------------------------------------------- small tools


def tally(pairs: Iterable[tuple[Route, str]]) -> dict[str, int]:
    """How many images of which domain went to which other one, or to none."""
    counts = Counter(f"{true} to {made or NOBODY}" for made, true in pairs if made != true)
    return dict(counts.most_common())


def balanced(dice: NDArray[np.float64], images: Sequence[Shown]) -> float:
    """The mean over domains of the means over their images."""
    of = np.array([one.domain for one in images])
    return round(float(np.mean([dice[of == name].mean() for name in np.unique(of)])), 4)


def gap(better: NDArray[np.float64], worse: NDArray[np.float64], images: Sequence[Shown]) -> list[float]:
    """Mean over domains of what is lost, with a 95 % interval: images are drawn again."""
    of = np.array([one.domain for one in images])
    sizes = {name: int((of == name).sum()) for name in np.unique(of)}
    weights = np.array([len(of) / (len(sizes) * sizes[name]) for name in of])
    found = mean_interval((better - worse) * weights)
    return [round(value, 4) for value in (found.mean, found.low, found.high)]


def share(values: Iterable[bool] | NDArray[np.bool_]) -> float:
    return round(float(np.mean(list(values))), 4)


def wilson(values: Iterable[bool] | NDArray[np.bool_]) -> list[float]:
    """95 % interval of a share (Wilson 1927)."""
    known = list(values)
    count, mean, z = len(known), float(np.mean(known)), 1.96
    middle = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * float(np.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count)))
    return [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]
