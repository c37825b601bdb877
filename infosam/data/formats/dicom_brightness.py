"""From the values that a DICOM file stores to those that are shown: modality and VOI transformations (PS3.3, C.11.1
and C.11.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What makes brightness of the scanner's values where that is no straight line: a sigmoid or a table."""

    top: float  # the brightest value that it gives; the darkest is 0
    sigmoid: tuple[float, float] | None = None  # centre and width; None: the table in the file
    table: str = ""  # its digest, to compare the slices of a series


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """What a file says of one of its pictures."""

    slope: float = 1.0
    intercept: float = 0.0
    table: bool = False  # a modality table takes the place of both
    window: tuple[float, float] | None = None  # values that become black and white
    curve: Curve | None = None  # goes before the window

    @property
    def stored(self) -> bool:
        """Whether the stored values are those of the scanner."""
        return not self.table and (self.slope, self.intercept) == (1, 0)


def brightness_of(get: Callable[[str], Any]) -> Brightness:
    """From the elements of a file by their names; `get` gives None for those it lacks. Of several windows or tables the
    first counts. Raises ValueError, TypeError, AttributeError or IndexError for what makes no sense."""
    centre, width = _number(get("WindowCenter")), _number(get("WindowWidth"))
    function = str(get("VOILUTFunction") or "LINEAR").upper()
    if function not in FUNCTIONS:
        raise ValueError(function)
    window = None if centre is None or not width or width <= 0 else (centre, width)
    curve = None
    if tables := get("VOILUTSequence"):
        curve = _table(tables[0])
    elif function == "SIGMOID" and window is not None:
        curve = Curve(top=1.0, sigmoid=window)
    slope, intercept = _number(get("RescaleSlope")), _number(get("RescaleIntercept"))
    return Brightness(
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        table=bool(get("ModalityLUTSequence")),
        window=None if window is None else _ends(*window, exact=function != "LINEAR"),
        curve=curve,
    )


def in_units(pixels: NDArray[np.generic], said: Brightness, header: Any, library: Any) -> NDArray[np.generic]:
    """Stored values of a picture in the unit of its scanner. `header` is the file's, `library` is pydicom.pixels."""
    if said.table:
        found: NDArray[np.generic] = library.apply_modality_lut(pixels, header)
        return found
    return pixels if said.stored else pixels.astype(np.float64) * said.slope + said.intercept


def along(values: NDArray[np.generic], curve: Curve, header: Any, library: Any) -> NDArray[np.generic]:
    """The scanner's values as brightness from 0 to `curve.top`."""
    if curve.sigmoid is not None:
        centre, width = curve.sigmoid
        exponent = np.clip(-4 * (values.astype(np.float64) - centre) / width, -700, 700)  # beyond, exp overflows
        shares: NDArray[np.float64] = 1 / (1 + np.exp(exponent))
        return shares
    whole = values if values.dtype.kind in "iu" else np.rint(values).astype(np.int64)
    found: NDArray[np.generic] = library.apply_voi(whole, header)
    return found


def _ends(centre: float, width: float, *, exact: bool) -> tuple[float, float]:
    if not exact:
        centre, width = centre - 0.5, max(0.0, width - 1)
    return centre - width / 2, centre + width / 2


def _table(item: Any) -> Curve:
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    if not 8 <= bits <= 16:
        raise ValueError(bits)
    content = item.LUTData
    known = content if isinstance(content, bytes) else repr(list(content)).encode()
    digest = hashlib.sha256(f"{entries} {first} {bits} ".encode() + known).hexdigest()
    return Curve(top=float(2**bits - 1), table=digest)


def _number(found: Any) -> float | None:
    """The first of several; None for nothing."""
    found = found[0] if hasattr(found, "__len__") and not isinstance(found, str) and found else found
    return None if found is None or found == "" or hasattr(found, "__len__") else float(found)
