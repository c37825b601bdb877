"""The benchmark of routing in its quick form, on procedural domains that are easy to tell apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_goes_on_and_says_what_it_must(quick: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = quick("routing", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"))
    assert found["domain_accuracy"] >= 0.9
    assert found["wrong_adapter"] == 0
    for prompt in ("box", "none"):
        assert all(0 <= found[f"dice_{who}_{prompt}"] <= 1 for who in ("router", "oracle", "base", "joint"))
    assert found["dice_router_box"] == pytest.approx(found["dice_oracle_box"], abs=0.05)
    assert {"false_accept", "false_accept_at_95", "harm_rate", "harm_rate_at_95"} <= found.keys()
    assert {"accuracy_jpeg_30", "accuracy_border_10"} <= found.keys()
    for size in (3, 6):
        assert found[f"swap_ms_{size}"] > 0
        assert found[f"p95_ms_mixed_{size}"] > 0
    assert found["mb_per_adapter_6"] < 20 * found["bundle_mb"]
    assert found["mixed_configs"] == 6
    assert found["swap_ms_mixed_configs"] > 0
    assert found["p95_ms_mixed_mixed_configs"] > 0
    assert found["median_ms_auto_from_block_0"] > 0
    out = tmp_path / "out"
    (choice,), (cost,), (file,) = (list(out.glob(f"20*-routing{part}.json")) for part in ("-choice", "-cost", ""))
    published = json.loads(file.read_text(encoding="utf-8"))
    priced = json.loads(cost.read_text(encoding="utf-8"))["figures"]
    assert published["figures"] | priced == found
    assert not published["figures"].keys() & priced.keys()
    clean = published["disturbed"]["clean"]
    assert clean["domain_accuracy"] == found["domain_accuracy"]  # the router's way and the benchmark's own agree
    assert clean["below_oracle"] == found["below_oracle_box"]
    assert json.loads(choice.read_text(encoding="utf-8"))["candidates"].keys() >= {found["chosen"]}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "adapters").glob("*/bundle/card.json")}
    assert len(before) == 4
    again = quick("routing", "--work", str(tmp_path / "work"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again["domain_accuracy"] == found["domain_accuracy"]
