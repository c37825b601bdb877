from __future__ import annotations

from pathlib import Path

import pytest

from infosam.data.formats.names import is_readable, without_suffix


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"),
        ("a.NII.GZ", "a"),
        ("v1.2.nii", "v1.2"),
        ("a.b.png", "a.b"),
        ("a", "a"),
        ("d.e/a.npy", "d.e/a"),
        ("1.2.840.113.7", "1.2.840.113.7"),  # a scanner's name of a slice
    ],
)
def test_names_lose_their_ending(name: str, expected: str) -> None:
    assert without_suffix(Path(name)).as_posix() == expected


def test_readable_files_are_told_by_ending_or_content(tmp_path: Path) -> None:
    good = dict.fromkeys(("a.png", "a.NII.GZ", "a.dcm", "a.JP2", "a.jfif"), True)
    expected = good | dict.fromkeys(("a.gz", "._a.dcm", "a.txt"), False)
    for name, readable in expected.items():
        assert is_readable(tmp_path / name) is readable
    for name, content, readable in (
        ("IM1", b"\0" * 128 + b"DICM", True),
        ("IM2", b"\0" * 132, False),
        ("LICENSE", b"text", False),
        ("1.2.840.113", b"\0" * 128 + b"DICM", True),
        ("notes.7", b"text", False),
        ("DICOMDIR", b"\0" * 128 + b"DICM", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_readable(tmp_path / name) is readable
    assert not is_readable(tmp_path)
