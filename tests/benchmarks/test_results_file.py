from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from results_file import publish


def test_no_path_of_this_machine_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "some.py"), "--data", str(tmp_path / "sets"), "--out", "results"])
    written = publish(tmp_path, "some", {"figure": 1})
    content = json.loads(written.read_text())
    assert content["command"] == "python benchmarks/some.py --data sets --out results"
    assert str(tmp_path) not in written.read_text()
    assert content["figures"] == {"figure": 1}
