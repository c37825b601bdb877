"""What every opened file is: pictures of one size, of which any part can be read by itself."""

from __future__ import annotations

import importlib
import struct
import tokenize
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infosam.data.masks import Unusable
from infosam.errors import DataError

Levels = tuple[tuple[float, float], ...]  # values that become 0 and 255, for each band or once for all
KEPT: Levels = ()  # 8-bit values stay as they are
MAX_FILE_MIB = 8192  # of pixels in memory; a damaged header may claim any size
# What libraries raise for damaged files. MemoryError: a header that claims more than there is; the headers of npy are
# Python literals.
DAMAGED = (
    OSError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError, ArithmeticError,
    NotImplementedError, RuntimeError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile,
    SyntaxError, tokenize.TokenError,
)  # fmt: skip


class Box(NamedTuple):
    """A part of a picture, in px."""

    top: int
    left: int
    height: int
    width: int


class Stack(ABC):
    """An opened file: one picture, or many of one size."""

    size: tuple[int, int]  # (H, W) of each picture
    count: int = 1
    nbytes: int = 1 << 20  # held in memory at most
    uses: frozenset[str] = frozenset()  # fields of PartOptions that it follows
    sliced: bool = False  # its pictures are slices of something larger, so that some may lack the object
    plane: str = ""  # word before the number of a slice, such as "axial"
    group: str | None = None  # patient or the like; None: the file itself
    affine: NDArray[np.float64] | None = None  # (4, 4) from (column, row, number of picture) to mm right, front, top
    space: str | None = None  # what these coordinates are of, if the file says
    levels: Levels | None = None  # None: to be measured on all pictures
    photo: bool = False  # colours that may be those of an ordinary picture, in other numbers
    inverted: bool = False  # low values are bright
    unplaced: str | None = None  # to be told if slices of a mask do not say where they lie
    remark: str | None = None  # what was decided by itself, and is to be told

    @abstractmethod
    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        """(h, w) or (h, w, 3) of a picture, every `step`-th pixel; NaN where there is nothing. Raises Unusable."""


@contextmanager
def reading(path: Path, kind: str, *more: type[Exception]) -> Iterator[None]:
    """Says what errors of a library mean, also `more` of its own: Unusable with the file, and a cure."""
    caught: tuple[type[Exception], ...] = (*DAMAGED, *more)
    try:
        yield
    except caught as error:
        if isinstance(error, DataError):
            raise  # the user's choice, not the file
        text = " ".join(str(error.__cause__ or error).split()).replace(f"'{path}'", "it").replace(str(path), "it")
        reason = text[:200] or type(error).__name__
        raise Unusable(f"{path}: the {kind} is damaged or cut short ({reason}); copy or export it again") from error


def library(name: str, extra: str, path: Path) -> Any:
    """An optional library. Raises DataError with what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise DataError(
            f"{path}: reading it needs {package}, which is not installed; pip install 'infosam[{extra}]'"
        ) from error


def chosen_bands(bands: tuple[int, ...], available: int, path: Path) -> tuple[int, ...]:
    """The user's bands, counted from 1. Raises Unusable if the file lacks one."""
    if missing := [band for band in bands if band > available]:
        amount = f"{available} band{'s' * (available != 1)}"
        raise Unusable(f"{path}: no band {missing[0]}, it has {amount}; correct --bands", "listing")
    return bands


def told_bands(shown: tuple[int, ...], available: int) -> str:
    """A remark on bands that nobody chose."""
    bands = "band" if len(shown) == 1 else "bands"
    return f"shown: {bands} {', '.join(map(str, shown))} of {available}; --bands chooses"


def check_memory(path: Path, shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of an array. Raises Unusable if they are beyond all reason."""
    if any(side < 1 for side in shape):
        raise Unusable(f"{path}: holds nothing, its shape is {shape_text(shape)}; export it again")
    nbytes = int(np.prod(shape, dtype=object)) * itemsize
    if nbytes > MAX_FILE_MIB << 20:
        raise Unusable(
            f"{path}: {shape_text(shape)} values need {nbytes >> 20:,} MiB, more than {MAX_FILE_MIB:,}; cut it", "bomb"
        )
    return nbytes


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as people write it."""
    return " x ".join(map(str, shape))
