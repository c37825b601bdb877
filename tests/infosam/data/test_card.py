from __future__ import annotations

import json
from pathlib import Path

import pytest

from infosam.data.card import CARD_NAME, DatasetCard, check_domain, read_card, write_card
from infosam.errors import DataError

COUNTS = {"train": 3, "val": 2, "test": 1}


def test_a_card_is_read_as_written_and_can_move(tmp_path: Path) -> None:
    card = DatasetCard(domain="polyp", digest="ab" * 32, counts=COUNTS, path=tmp_path / "a", notes=("made val",))
    (tmp_path / "a").mkdir()
    write_card(tmp_path / "a", card)
    assert read_card(tmp_path / "a") == card
    (tmp_path / "a").rename(tmp_path / "b")
    assert read_card(tmp_path / "b").path == tmp_path / "b"
    assert str(tmp_path) not in (tmp_path / "b" / CARD_NAME).read_text()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not a readable description"),
        ("[]", "not a readable description"),
        ("null", "not a readable description"),
        (json.dumps({"schema_version": 99}), "schema version 99"),
        (json.dumps({"schema_version": 1, "domain": "x", "digest": "y", "counts": {"train": 1}}), "'val'"),
        (json.dumps({"schema_version": 1, "domain": "x", "digest": "y", "counts": 7}), "not a readable description"),
    ],
)
def test_a_damaged_or_newer_card_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / CARD_NAME).write_text(content)
    with pytest.raises(DataError, match=expected) as caught:
        read_card(tmp_path)
    assert "import the source again" in str(caught.value)


def test_a_folder_that_is_no_data_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; make the data set with `infosam data import"):
        read_card(tmp_path / "missing")
    with pytest.raises(DataError, match="not an imported data set"):
        read_card(tmp_path)


@pytest.mark.parametrize("domain", ["polyp", "Road-2", "x", "a_b"])
def test_plain_domain_names_are_accepted(domain: str) -> None:
    check_domain(domain)


@pytest.mark.parametrize("domain", ["", "a b", "../x", "-a", "ä", "a\n", "a" * 65, "a/b"])
def test_domain_names_that_are_no_file_names_are_refused(domain: str) -> None:
    with pytest.raises(DataError, match="letters, digits"):
        check_domain(domain)
