"""What every reader promises, on a source of its own and on those of all others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from small_sources import AMOUNT, SOURCES, truth

from infosam.data.pairs import ReadOptions
from infosam.data.pixels import open_pair
from infosam.data.readers.contract import Reader
from infosam.data.readers.table import READERS, choose_reader
from infosam.errors import DataError

BY_NAME = {type(reader).__name__: reader for reader in READERS}


def state(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_every_reader_is_tested() -> None:
    assert BY_NAME.keys() == SOURCES.keys()


@pytest.mark.parametrize("name", SOURCES)
def test_a_reader_is_chosen_for_its_source_and_lists_all_pairs(name: str, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path / "set")
    before = state(tmp_path)
    reader: Reader = choose_reader(source)
    assert type(reader).__name__ == name
    problems: list[str] = []
    listing = reader.read(source, ReadOptions(), problems)
    assert problems == []
    assert len(listing.listed) == AMOUNT
    assert len({pair.row for pair in listing.listed}) == AMOUNT
    found = [open_pair(pair)[0].mask for pair in listing.listed]
    expected = [truth(number) for number in range(AMOUNT)]
    for mask in expected:
        assert any(np.array_equal(mask, other) for other in found)
    assert all(pair.image.is_relative_to(listing.root) for pair in listing.listed)
    assert state(tmp_path) == before


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "json", "arrow", "png", "txt"])
def test_odd_content_is_no_trouble_for_fits(name: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"odd.{ending}"
    for content in (b"", b"\0" * 50, bytes(range(256)), b'{"images": [', b"PAR1PAR1"):
        path.write_bytes(content)
        assert BY_NAME[name].fits(path) in (True, False)
        assert BY_NAME[name].fits(tmp_path) in (True, False)


def test_a_source_that_may_not_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbid)
    with pytest.raises(DataError, match=r"Permission denied.*check its permissions"):
        choose_reader(tmp_path)
