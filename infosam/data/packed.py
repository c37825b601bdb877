"""Many pairs in little memory: there may be millions, and an object for each takes five times that of its text."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from infosam.data.card import SPLITS
from infosam.data.pairs import Pair


class PackedPairs(Sequence[Pair]):
    """Pairs as columns of text; each is made anew when it is asked for."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._images, self._masks, self._rows, self._groups = (_Texts() for _ in range(4))
        self._splits = bytearray()
        self._contents: dict[int, tuple[Callable[[], Any] | None, Callable[[], Any] | None]] = {}  # of image and mask
        for pair in pairs:
            if pair.image_content or pair.mask_content:
                self._contents[len(self._splits)] = (pair.image_content, pair.mask_content)
            self._splits.append(SPLITS.index(pair.split))
            self._images.append(pair.image_name)
            self._masks.append(pair.mask_name)
            self._rows.append(pair.row)
            self._groups.append(pair.group or "")

    def __len__(self) -> int:
        return len(self._splits)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        image_content, mask_content = self._contents.get(position, (None, None))
        return Pair(
            image_name=self._images[position],
            mask_name=self._masks[position],
            split=SPLITS[self._splits[position]],
            row=self._rows[position],
            group=self._groups[position] or None,
            image_content=image_content,
            mask_content=mask_content,
        )

    def __iter__(self) -> Iterator[Pair]:
        return (self[position] for position in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedPairs) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list


class _Texts:
    """Texts one after another, also those that are no UTF-8, such as the name of an old list."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def append(self, text: str) -> None:
        self._bytes += text.encode(errors="surrogatepass")
        self._ends.append(len(self._bytes))

    def __getitem__(self, position: int) -> str:
        return self._bytes[self._ends[position] : self._ends[position + 1]].decode(errors="surrogatepass")
