"""Many adapters on one SAM in memory: by name, or chosen per image by the router; bundles come and go meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infosam.bundle import read_bundle
from infosam.config import ModelConfig
from infosam.data.card import AUTO, PLAIN
from infosam.data.transforms import prepare_image
from infosam.decoding import Placed, at_own_size, decode_placed, place
from infosam.errors import BundleError, UnknownDomain
from infosam.evaluation import choose_device
from infosam.prompt_files import ImagePrompt
from infosam.protocols import STRICT, ProtocolConfig
from infosam.routing.router import Route, Router
from infosam.routing.shelf import Held, Shelf
from infosam.sam.encoder import FrozenPass, encode
from infosam.sam.weights import BaseSam, load_base


@dataclass(frozen=True)
class Segmented:
    """One image's mask, and by which adapter."""

    mask: NDArray[np.bool_]  # (H, W)
    domain: str | None  # None: frozen SAM
    version: str | None  # of the bundle, as it was given to `AdapterPool.add`
    score: float | None  # distance to the nearest domain; None where the router was not asked, or knows no domain
    threshold: float | None  # largest distance at which that domain is taken
    reason: str  # why this adapter, in words


class AdapterPool:
    """One base in memory, and the adapters of any number of domains. Safe for several threads.

    A prediction that is under way goes on with the adapters that it began with, whatever is added or removed."""

    def __init__(self, source: ModelConfig | BaseSam, *, device: str = "auto", memory_mib: int | None = None) -> None:
        """`memory_mib`: most that the weights of adapters take, with a skeleton (about 0.7 MB for vit_nano) for each
        configuration among them; those unused for longest are then dropped, and read again when they are asked for.
        None: all stay.

        Raises WeightsError or ConfigError."""
        self._base = load_base(source) if isinstance(source, ModelConfig) else source
        self.device = choose_device(device)
        self.canvas_px = self._base.spec.image_px
        self._base.sam.to(self.device)
        self._shelf = Shelf(self._base, memory_mib)
        self._lock = threading.Lock()
        self._held: Mapping[str, Held] = {}  # replaced as a whole, so that whoever reads it sees one state
        self._router = Router({}, self._base.spec.patch_px)

    @classmethod
    def from_folders(
        cls,
        bundles: Mapping[str, Path],
        *,
        checkpoint: Path | None = None,
        device: str = "auto",
        memory_mib: int | None = None,
    ) -> AdapterPool:
        """A pool of bundles by domain, on the base of the first. `checkpoint`: where the base weights lie here, for
        other bases than vit_nano. Raises ValueError without bundles, else as `add`, or WeightsError."""
        if not bundles:
            raise ValueError("a pool from folders needs at least one bundle, to know its base")
        base = read_bundle(next(iter(bundles.values()))).model(checkpoint)
        pool = cls(base, device=device, memory_mib=memory_mib)
        for domain, bundle in bundles.items():
            pool.add(domain, bundle)
        return pool

    def add(self, domain: str, bundle: Path, version: str | None = None) -> None:
        """Takes a bundle in under this name, instead of an older one of that name. Masks it makes bear its `version`.

        Raises BundleError for a broken bundle, BundleMismatch for one on another base or canvas; nothing changes then.
        """
        if domain in ("", AUTO, PLAIN):
            raise BundleError(f"{bundle}: a domain cannot be called {domain!r}")
        held = self._shelf.open(domain, bundle, version)
        with self._lock:
            old = self._held.get(domain)
            self._change({**self._held, domain: held})
        if old is not None:
            self._shelf.close(old)

    def remove(self, domain: str) -> None:
        """Lets a domain go. Raises UnknownDomain."""
        with self._lock:
            rest = dict(self._held)
            if domain not in rest:
                raise _unknown(domain, self._held)
            old = rest.pop(domain)
            self._change(rest)
        self._shelf.close(old)

    def domains(self) -> tuple[str, ...]:
        """All names that can be asked for, sorted."""
        return tuple(sorted(self._held))

    def routable(self) -> tuple[str, ...]:
        """Those that "auto" may choose: their bundles have statistics."""
        return tuple(sorted(name for name, held in self._held.items() if held.statistics is not None))

    @property
    def weights_bytes(self) -> int:
        """Memory that the weights of adapters and their skeletons take now; the base is not counted."""
        return self._shelf.nbytes

    @torch.no_grad()
    def predict_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[ImagePrompt | None] | None = None,
        domains: Sequence[str | None] | None = None,
    ) -> list[Segmented]:
        """Masks of images (H, W, 3) of any sizes that go through the model together, in their order.

        `domains`: for each image a name, "auto", or None for SAM without adapter; default: "auto" for all.

        Raises DataError for a prompt outside its image, UnknownDomain, or BundleError for a bundle whose weights were
        dropped and cannot be read again."""
        if not images:
            return []
        asked = [AUTO] * len(images) if domains is None else list(domains)
        with self._lock:
            held, router = self._held, self._router
        for name in asked:
            if name is not None and name != AUTO and name not in held:
                raise _unknown(name, held)
        placed = place(images, prompts, self.canvas_px)
        starts = {one.start for one in held.values() if one.start is not None}
        shown = _Shown(images, self._base, self.device, keep=router.taps | starts)
        routes = [_by_request(name) for name in asked]
        if AUTO in asked:
            found = router.routes(shown.frozen, [one.resized_hw for one in placed])
            routes = [found[row] if name == AUTO else routes[row] for row, name in enumerate(asked)]
        masks: dict[int, NDArray[np.bool_]] = {}
        for name in dict.fromkeys(route.domain for route in routes):
            rows = [row for row, route in enumerate(routes) if route.domain == name]
            some = [placed[row] for row in rows]
            logits = self._logits(None if name is None else held[name], shown, rows, some)
            masks |= {row: one > 0 for row, one in zip(rows, at_own_size(logits, some, self.canvas_px), strict=True)}
        versions = {name: one.version for name, one in held.items()}
        return [
            Segmented(
                mask=masks[row],
                domain=route.domain,
                version=versions.get(route.domain or ""),
                score=route.score,
                threshold=route.threshold,
                reason=route.reason,
            )
            for row, route in enumerate(routes)
        ]

    def _logits(self, held: Held | None, shown: _Shown, rows: Sequence[int], placed: Sequence[Placed]) -> Tensor:
        """What one adapter, or the base, says about some images of a batch."""
        if held is None:
            return decode_placed(self._base.sam, shown.frozen.rows(rows).embeddings(), placed)
        entered = shown.entered(held, rows)
        with self._shelf.worn(held) as sam:
            embeddings = entered if held.start is None else encode(sam.image_encoder, entered, start=held.start)
            return decode_placed(sam, embeddings, placed)

    def _change(self, held: Mapping[str, Held]) -> None:
        known = {name: one.statistics for name, one in held.items() if one.statistics is not None}
        self._router = Router(known, self._base.spec.patch_px)
        self._held = held


class _Shown:
    """The images of a batch on the canvas, and what the frozen blocks make of them."""

    def __init__(
        self, images: Sequence[NDArray[np.uint8]], base: BaseSam, device: torch.device, *, keep: Collection[int]
    ) -> None:
        self._images = images
        self._base = base
        self._device = device
        self._keep = keep

    @cached_property
    def frozen(self) -> FrozenPass:
        """Of all images, shown strictly, as the router looks at them."""
        everything = self._canvas(range(len(self._images)), STRICT)
        return FrozenPass(self._base.sam.image_encoder, everything, keep=self._keep)

    def entered(self, held: Held, rows: Sequence[int]) -> Tensor:
        """What enters the first block that differs, or the images if that is 0, or the embeddings if none does."""
        if held.start == 0:
            return self._canvas(rows, held.protocol)
        if held.protocol == STRICT:
            frozen = self.frozen.rows(rows)
        else:
            frozen = FrozenPass(self._base.sam.image_encoder, self._canvas(rows, held.protocol))
        return frozen.embeddings() if held.start is None else frozen.enter(held.start)

    def _canvas(self, rows: Iterable[int], protocol: ProtocolConfig) -> Tensor:
        shown = [prepare_image(self._images[row], self._base.spec.image_px, protocol) for row in rows]
        return torch.stack(shown).to(self._device)


def _by_request(name: str | None) -> Route:
    return Route(name, None, None, "asked for" if name else "plain SAM was asked for")


def _unknown(name: str, held: Mapping[str, Held]) -> UnknownDomain:
    known = ", ".join(sorted(held)) or "none"
    return UnknownDomain(f"the pool has no domain {name!r}; it has: {known}")
