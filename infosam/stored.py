"""What the processes of a machine share in stores: how each row comes about, and reading it where a store has it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from infosam.config import RunConfig, StoredType
from infosam.tensor_store import (
    RowType,
    StoreDamaged,
    TensorStore,
    build_store,
    open_sound,
    open_store,
    set_aside,
    store_path,
)


@dataclass(frozen=True, kw_only=True)
class Content:
    """All rows of a store."""

    key: Mapping[str, Any]  # everything they depend on, as JSON values
    rows: int
    dtype: RowType
    make: Callable[[int], Tensor] = field(compare=False, repr=False)

    def path(self, folder: Path) -> Path:
        """Where its store lies in a folder of stores."""
        return store_path(folder, self.key)

    def build(
        self, folder: Path, *, limit_bytes: int | None = None, tell: Callable[[int], None] | None = None
    ) -> TensorStore:
        """Writes the store unless a sound one is there; returns it. `tell` hears how many rows are made.

        Raises StoreFull."""
        found = open_sound(self.path(folder), rows=self.rows)
        if found is not None:
            return found
        made = self._made(tell or (lambda _: None))
        return build_store(folder, self.key, made, dtype=self.dtype, rows=self.rows, limit_bytes=limit_bytes)

    def _made(self, tell: Callable[[int], None]) -> Iterator[Tensor]:
        for index in range(self.rows):
            yield self.make(index)
            tell(index + 1)


class SharedRows:
    """The rows of a store, as far as there is one: a missing or damaged one must not cost a run."""

    def __init__(self, content: Content, folder: Path) -> None:
        self._path = content.path(folder)
        self._rows = content.rows
        self._store: TensorStore | None = None
        self._is_looked_for = False

    def read(self, index: int) -> Tensor | None:
        """Row `index`, None if whoever asks must make it."""
        try:
            if not self._is_looked_for:
                self._is_looked_for = True
                self._store = open_store(self._path, rows=self._rows)
            return None if self._store is None else self._store.read(index)
        except StoreDamaged as damage:
            warnings.warn(f"{damage}; what it held is computed instead", stacklevel=2)
            self._store = None
            set_aside(self._path, damage)  # so that the next sweep builds it again
            return None


class Encoding(NamedTuple):
    """One kind of encodings of the train split that runs use."""

    of: Literal["teacher", "base"]
    block: int | None  # what enters this block of the encoder; None: the image embeddings
    dtype: StoredType
    variants: int = 1  # of each image, see `AugmentConfig.variants`


def encodings_of(config: RunConfig) -> list[Encoding]:
    """What the steps of a run ask frozen encoders for, again and again for the same images."""
    variants = config.augment.variants
    if variants is None:
        return []
    first = getattr(config.peft, "first_block", None)  # without one nothing in the encoder is trained
    asked: list[tuple[Literal["teacher", "base"], int | None]] = []
    if config.info.active:
        asked.append(("base" if config.model.teacher is None else "teacher", None))
    if first is None or (first > 0 and config.cache.prefix):
        asked.append(("base", first))
    return [Encoding(of, block, config.cache.dtype, variants) for of, block in dict.fromkeys(asked)]
