"""The bundles of a pool: checked when they come in, their weights in memory as far as that is allowed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segment_anything.modeling import Sam

from infosam.bundle import Bundle, check_base, read_bundle
from infosam.errors import BundleError, BundleMismatch
from infosam.peft.config import PeftConfig
from infosam.protocols import PROTOCOLS, ProtocolConfig
from infosam.routing.skeleton import Skeleton, Weights
from infosam.routing.statistics import DomainStatistics, read_statistics
from infosam.sam.weights import BaseSam


@dataclass(eq=False)
class Held:
    """A bundle that was taken in."""

    domain: str
    path: Path
    version: str | None  # what its owner calls it
    digest: str  # of its card, which holds those of all its files
    peft: PeftConfig
    key: str  # of its skeleton
    protocol: ProtocolConfig  # in which it expects its images
    start: int | None  # first block of the encoder that differs from the base
    statistics: DomainStatistics | None
    nbytes: int  # of its weights
    weights: Weights | None  # None: dropped, and read again from `path` when asked for


class Slot:
    """The skeleton of one configuration, made when it is first needed; others need not wait for that."""

    def __init__(self, base: BaseSam, config: PeftConfig) -> None:
        self._base, self._config = base, config
        self._making = threading.Lock()
        self._skeleton: Skeleton | None = None

    def skeleton(self) -> Skeleton:
        """Made here if need be, which takes some hundredths of a second. Raises ConfigError."""
        with self._making:
            if self._skeleton is None:
                self._skeleton = Skeleton(self._base, self._config)
            return self._skeleton

    @property
    def nbytes(self) -> int:
        """Memory that it takes by itself."""
        return 0 if self._skeleton is None else self._skeleton.nbytes


class Shelf:
    """Opens bundles for one base, and keeps their weights as far as `memory_mib` allows, and for each configuration of
    those a skeleton. Thread-safe.

    Args:
        memory_mib: most that weights and skeletons take together; what is in use is never dropped. None: no limit.
    """

    def __init__(self, base: BaseSam, memory_mib: int | None) -> None:
        self._base = base
        self._limit_bytes = None if memory_mib is None else memory_mib << 20
        self._lock = threading.Lock()
        self._by_use: OrderedDict[Held, None] = OrderedDict()  # the one used last stands last
        self._slots: dict[str, Slot] = {}  # of the configurations of bundles whose weights are in memory

    def open(self, domain: str, path: Path, version: str | None = None) -> Held:
        """Reads and checks a bundle. Raises BundleError or BundleMismatch."""
        bundle = read_bundle(path)
        self._check(bundle)
        config = bundle.config
        key = config.peft.model_dump_json()
        skeleton = self._skeleton(key, config.peft)
        with skeleton.lock:
            weights = skeleton.read(bundle)
        held = Held(
            domain=domain,
            path=path,
            version=version,
            digest=_digest(bundle),
            peft=config.peft,
            key=key,
            protocol=PROTOCOLS[config.model.protocol],
            start=skeleton.start,
            statistics=read_statistics(path, bundle.card, self._base.spec.image_px),
            nbytes=sum(tensor.nbytes for tensor in weights.values()),
            weights=weights,
        )
        with self._lock:
            self._by_use[held] = None
            self._make_room(held)
        return held

    def close(self, held: Held) -> None:
        """No longer counts a bundle; its memory is free when the last prediction that uses it is done."""
        with self._lock:
            self._by_use.pop(held, None)
            self._tidy()

    @contextmanager
    def worn(self, held: Held) -> Iterator[Sam]:
        """A SAM with this bundle's adapter, for the caller alone until the end of the block.

        Raises BundleError if its weights were dropped and cannot be read again."""
        skeleton = self._skeleton(held.key, held.peft)
        with skeleton.lock:
            weights = held.weights
            if weights is None:
                weights = held.weights = self._read_again(held, skeleton)
            with self._lock:
                if held in self._by_use:
                    self._by_use.move_to_end(held)
                    self._make_room(held)
            try:
                skeleton.wear(weights)
                yield skeleton.sam
            finally:
                skeleton.undress()

    @property
    def nbytes(self) -> int:
        """Memory that weights and skeletons take."""
        with self._lock:
            return self._taken()

    def _check(self, bundle: Bundle) -> None:
        check_base(bundle, self._base)
        canvas_px = bundle.card["base"].get("image_px")
        if canvas_px != self._base.spec.image_px:
            raise BundleMismatch(
                f"{bundle.path}: trained on a canvas of {canvas_px} px, the base here has {self._base.spec.image_px} "
                "px; use it alone: infosam predict --bundle"
            )

    def _skeleton(self, key: str, config: PeftConfig) -> Skeleton:
        with self._lock:
            slot = self._slots.setdefault(key, Slot(self._base, config))
        return slot.skeleton()

    def _read_again(self, held: Held, skeleton: Skeleton) -> Weights:
        bundle = read_bundle(held.path)
        if _digest(bundle) != held.digest:
            raise BundleError(f"{held.path}: is another bundle than when it was added as {held.domain}; add it again")
        return skeleton.read(bundle)

    def _make_room(self, needed: Held) -> None:
        """Drops weights, those unused for longest first, but for the `needed` ones, and skeletons that nobody needs."""
        if self._limit_bytes is None:
            return
        taken = self._taken()
        for held in self._by_use:
            if taken <= self._limit_bytes:
                return
            if held is not needed and held.weights is not None:
                held.weights = None
                self._tidy()
                taken = self._taken()

    def _taken(self) -> int:
        weights = sum(held.nbytes for held in self._by_use if held.weights is not None)
        return weights + sum(slot.nbytes for slot in self._slots.values())

    def _tidy(self) -> None:
        """Lets skeletons go that fit no weights in memory."""
        needed = {held.key for held in self._by_use if held.weights is not None}
        self._slots = {key: slot for key, slot in self._slots.items() if key in needed}


def _digest(bundle: Bundle) -> str:
    return hashlib.sha256(json.dumps(bundle.card, sort_keys=True).encode()).hexdigest()
