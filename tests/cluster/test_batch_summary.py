"""The summary of a batch outlives whoever was killed while it was made."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.fs
import pytest

from cluster.batch_summary import COLUMNS, EVERY_S, Summary
from infosam.errors import DataError


def row(image: str, **values: object) -> dict[str, object]:
    return dict.fromkeys(COLUMNS) | {"image": image, "problem": "", "area": 0.25, **values}


def opened(folder: Path, now: list[float]) -> Summary:
    return Summary(pyarrow.fs.LocalFileSystem(), str(folder / "out"), clock=lambda: now[0])


def test_rows_are_written_while_the_work_goes_on(tmp_path: Path) -> None:
    now = [0.0]
    killed = opened(tmp_path, now)
    killed.add(row("a.png", score=math.nan))
    assert not (tmp_path / "out").exists()
    now[0] = EVERY_S
    killed.add(row("b.png", reason='a comma, a "quote"\nand a line'))
    killed.add(row("c.png"))
    after = opened(tmp_path, now)
    assert after.made == {"a.png", "b.png"}
    after.add(row("c.png", problem="cannot be read"))
    after.write()
    again = opened(tmp_path, now)
    assert again.made == {"a.png", "b.png"}
    again.add(row("c.png"))
    again.write()
    text = (tmp_path / "out" / "summary.csv").read_text()
    assert opened(tmp_path, now).made == {"a.png", "b.png", "c.png"}
    assert text.splitlines()[1] == "a.png,,,,,,0.25,"
    assert 'a comma, a ""quote""' in text


def test_another_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.csv").write_text("name,age\nme,7\n")
    with pytest.raises(DataError, match="is no summary of a batch, it has the columns name, age"):
        opened(tmp_path, [0.0])
