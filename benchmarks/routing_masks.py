"""Test images, how far they lie from each domain, and the Dice that each adapter reaches on them, each made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from routing_choice import DISTURBED

from infosam import metrics
from infosam.bundle import read_bundle
from infosam.data.card import Split
from infosam.data.prompts import box_of
from infosam.data.store import open_dataset
from infosam.prompt_files import ImagePrompt
from infosam.routing.fitting import encode_pictures
from infosam.routing.pool import AdapterPool, Segmented
from infosam.routing.statistics import DomainStatistics, read_statistics
from infosam.sam.weights import load_base

TOGETHER = 4


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

    def disturbed(self, how: str, row: int) -> Shown:
        """The same image under a disturbance, and its mask changed with it; `row` makes it repeat."""
        change = DISTURBED[how]
        truth = self.truth
        if not how.startswith("jpeg"):
            truth = change(truth.astype(np.uint8) * 255, np.random.default_rng([2, row])) > 127
        return Shown(self.domain, change(self.rgb, np.random.default_rng([2, row])), truth)


def images_of(name: str, folder: Path, split: Split) -> list[Shown]:
    """A data set's images of a split, each once, with its first mask."""
    store = open_dataset(folder)
    samples = (store.read(split, rows[0]) for rows in store.images(split))
    return [Shown(name, sample.image, sample.mask) for sample in samples]


def relative_distances(bundles: Mapping[str, Path], images: Sequence[Shown]) -> NDArray[np.float64]:
    """(images, domains): distance over the threshold of each bundle, as the router compares them."""
    model = read_bundle(next(iter(bundles.values()))).model()
    base = load_base(model)
    known: list[DomainStatistics] = []
    for folder in bundles.values():
        found = read_statistics(folder, read_bundle(folder).card, base.spec.image_px)
        assert found is not None
        known.append(found)
    config = known[0].card.features
    seen = encode_pictures(base, (one.rgb for one in images), torch.device("cpu"), config)
    columns = [one.scores(seen) / one.card.threshold for one in known]
    distances: NDArray[np.float64] = torch.stack(columns, dim=1).double().numpy()
    return distances


class Scored:
    """Dice of images by adapters of a pool; None is frozen SAM."""

    def __init__(self, pool: AdapterPool, images: Sequence[Shown], *, with_box: bool) -> None:
        self._pool = pool
        self._images = images
        self._with_box = with_box
        self._known: dict[tuple[int, str | None], float] = {}

    def dice(self, domains: Sequence[str | None], rows: Sequence[int] | None = None) -> NDArray[np.float64]:
        """(n,) of the images `rows` (default: all) by the adapter of each."""
        asked = list(zip(range(len(self._images)) if rows is None else rows, domains, strict=True))
        missing = [one for one in dict.fromkeys(asked) if one not in self._known]
        some = [self._images[row] for row, _ in missing]
        made = segmented(self._pool, [domain for _, domain in missing], some, with_box=self._with_box)
        for key, one, image in zip(missing, made, some, strict=True):
            self._known[key] = float(metrics.dice(torch.from_numpy(one.mask), torch.from_numpy(image.truth)))
        return np.array([self._known[one] for one in asked])


def segmented(
    pool: AdapterPool, domains: Sequence[str | None], images: Sequence[Shown], *, with_box: bool
) -> list[Segmented]:
    found: list[Segmented] = []
    for start in range(0, len(images), TOGETHER):
        some = images[start : start + TOGETHER]
        prompts = [one.box if with_box else None for one in some]
        found += pool.predict_batch([one.rgb for one in some], prompts, domains[start : start + TOGETHER])
    return found
