"""The summary of a batch: a row for each picture, kept from run to run, however a run ended."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from infosam.errors import DataError

COLUMNS = ("image", "domain", "version", "score", "threshold", "reason", "area", "problem")
FILE = "summary.csv"
EVERY_S = 30.0
SHARE = 20
"""Writing takes at most one part in so many of the time."""


class Summary:
    """Rows by picture. What an earlier run wrote stays until a picture is made again.

    Args:
        system: of Arrow.
        root: its folder.
        clock: seconds.
    """

    def __init__(self, system: Any, root: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises DataError for a file of that name that is no summary."""
        self._system, self._root, self._clock = system, root, clock
        self._rows = self._read()
        self._due = clock() + EVERY_S

    @property
    def made(self) -> set[str]:
        """Pictures that have a mask by this summary."""
        return {image for image, row in self._rows.items() if not row["problem"]}

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes a row in, and writes all of them now and then: whoever is killed loses the last seconds, and pictures
        without a row are made again."""
        self._rows[str(row["image"])] = {name: _cell(row[name]) for name in COLUMNS}
        if self._clock() >= self._due:
            began = self._clock()
            self.write()
            self._due = self._clock() + max(EVERY_S, SHARE * (self._clock() - began))

    def write(self) -> None:
        """All rows, by picture; whole or not at all. Nothing where there are none."""
        if not self._rows:
            return
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(row for _, row in sorted(self._rows.items()))
        self._system.create_dir(self._root, recursive=True)
        path = f"{self._root}/{FILE}"
        with self._system.open_output_stream(f"{path}.part") as stream:
            stream.write(text.getvalue().encode())
        self._system.move(f"{path}.part", path)

    def _read(self) -> dict[str, dict[str, str]]:
        path = f"{self._root}/{FILE}"
        try:
            with self._system.open_input_stream(path) as stream:
                text = bytes(stream.read()).decode()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = reader.fieldnames or []
        if not {"image", "problem"} <= set(columns):
            raise DataError(f"{path}: is no summary of a batch, it has the columns {', '.join(columns) or 'none'}")
        return {row["image"]: {name: row.get(name) or "" for name in COLUMNS} for row in reader}


def _cell(value: object) -> str:
    """Empty for nothing, NaN included: Ray makes that of a number that is not there."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
