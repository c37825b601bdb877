"""README and docs quote the published results and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from information_curves import CURVES
from quote_results import FILES, LACKING, QUOTES, RESULTS, quoted
from results_file import newest


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_texts_hold_the_published_figures(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "<!-- quoted: " in text
    assert quoted(text, RESULTS) == text, "run python benchmarks/quote_results.py"


def test_nothing_is_said_without_a_result(tmp_path: Path) -> None:
    for name in QUOTES:
        text = f"before\n<!-- quoted: {name} -->\n0.99\n<!-- end of quote -->\nafter"
        assert quoted(text, tmp_path) == f"before\n<!-- quoted: {name} -->\n{LACKING}\n<!-- end of quote -->\nafter"


def write(folder: Path, name: str, figures: dict[str, Any], day: str = "2026-01-02") -> None:
    content = {"at": f"{day}T10:00:00", "command": "python x", "commit": "abc", "device": "CPU", "figures": figures}
    (folder / f"{day}-{name}.json").write_text(json.dumps(content))


def test_the_newest_result_counts_and_variants_are_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path, "search-quality", {"old": True}, "2025-12-31")
    write(tmp_path, "search-quality", {"old": False})
    write(tmp_path, "search-quality-batch-8", {"other": True}, "2027-01-01")
    found = newest(tmp_path, "search-quality")
    assert found is not None
    assert found["figures"] == {"old": False}


def gain(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "images": 7, "seeds": 3, "sd_over_seeds": 0.001}


def test_a_gain_is_called_one_only_where_its_interval_says_so(tmp_path: Path) -> None:
    pair = "lora+infosam - lora"
    rows = {prompt: {"dots": gain(*row), "pooled": gain(*row)} for prompt, row in PROMPTS.items()}
    means = {f"test/{prompt}/dice{end}": 0.75 for prompt in PROMPTS for end in ("", "_sd")}
    write(tmp_path, "does-infosam-help", {"domains": {"dots": {"lora": means}}, "gains": {pair: rows}})
    short = QUOTES["evidence"](tmp_path)
    assert "+1.0 [+0.5, +1.5] points of test Dice with a box" in short
    assert "with a box a gain and without a prompt not told from chance" in short
    page = QUOTES["does-infosam-help"](tmp_path)
    assert f"| {pair} | -0.2 [-0.9, +0.5], sd 0.1 | -0.2 [-0.9, +0.5], sd 0.1 |" in page
    assert "| lora | 0.750 ± 0.750 |" in page
    assert "adapter" not in page


PROMPTS = {"box": (0.01, 0.005, 0.015), "none": (-0.002, -0.009, 0.005)}


def test_searches_are_quoted_with_what_they_were_replayed_on(tmp_path: Path) -> None:
    def row(epochs: float, ratio: float) -> dict[str, Any]:
        ratios = {"medians": ratio, "means": ratio + 0.1, "domains": ratio + 0.2}
        return {
            "median_epochs_to_99": epochs, "mean_epochs_to_99": epochs + 1, "share_reached": 0.996,
            "mean_regret_after": {"24": 0.01}, "ratio_to_random": ratios,
        }  # fmt: skip

    candidates = {"a": {"mean_epochs": 12.5, "share_reached": 1.0}, "b": {"mean_epochs": 20.0, "share_reached": 0.996}}
    rows = {"random cold": row(100.0, 1.0), "tpe+asha later sweep": row(30.0, 0.3)}
    figures = {
        "shipped": "tpe+asha later sweep",
        "searches": {"1": rows, "4": {**rows, "tpe+asha later sweep": row(50.0, 0.5)}},
        "configurations": {"dots": 32, "rings": 30},
        "seeds": 50, "gp_seeds": 10, "slots": [1, 4],
        "by_domain": {
            slots: {
                "dots": {
                    "configurations_that_reach": 3,
                    "ratio_to_random": {"random cold": 1.0, "tpe+asha later sweep": 0.3},
                    "median_epochs_to_99": {"random cold": 100.0, "tpe+asha later sweep": 30.0},
                }
            }
            for slots in ("1", "4")
        },
        "choice": {"points": {"chosen": "a", "candidates": candidates, "beside": {"c": candidates["b"]}}},
        "best_configurations": {
            "peft.kind": {"lora": 3}, "optim.lr": {"low": 1e-4, "median": 2e-4, "high": 1e-3, "zero": 0},
        },
    }  # fmt: skip
    write(tmp_path, "search-quality", figures)
    page = QUOTES["search-quality"](tmp_path)
    assert "with 1 trial at a time 0.30 (ratio of medians; of means 0.40, mean over domains 0.50)" in page
    assert "with 4 trials at a time 0.50" in page
    assert "the goal was 0.25" in page
    assert "62 finished runs of 2 domains, 50 seeds (10 for GP)" in page
    assert "| tpe+asha later sweep | 50 | 51.0 | 99.6% | 0.50 | 0.60 | 0.70 | 0.0100 |" in page
    assert "| dots | 3 of 32 | 100 (1.00) | 30 (0.30) |" in page
    choice = QUOTES["chosen-defaults"](tmp_path)
    assert "| **a** | 12.5 | 100.0% |" in choice
    assert "| not a candidate: c | 20 | 99.6% |" in choice
    assert "| `optim.lr` | 0.0001 to 0.001, median 0.0002 |" in choice
    short = QUOTES["evidence"](tmp_path)
    assert "(benchmarks/results/search-quality-starts.svg)" in short
    assert "does-infosam-help.svg" not in short  # not measured


def test_variants_stand_beside_the_comparison_with_the_bits_that_were_left(tmp_path: Path) -> None:
    pair = "lora+infosam - lora"

    def figures(overrides: list[str], mean: float, bits: float) -> dict[str, Any]:
        curve = {name: [1.0, bits] for name in CURVES}
        return {
            "settings": {"overrides": overrides},
            "gains": {pair: {prompt: {"pooled": gain(mean, mean, mean)} for prompt in PROMPTS}},
            "information": {"dots": {"lora+infosam": curve}, "rings": {"lora+infosam": curve}},
        }

    write(tmp_path, "does-infosam-help", figures([], -0.01, 0.0))
    write(tmp_path, "does-infosam-help-info.compression-0.03", figures(["info.compression=0.03"], 0.02, 0.75))
    told = QUOTES["variants"](tmp_path)
    assert f"| as above | {pair} | 0.00 to 0.00 | -1.0" in told
    assert f"| `info.compression=0.03` | {pair} | 0.75 to 0.75 | +2.0" in told
    assert "| lora+infosam | rings | 1.00 to 0.00 |" in QUOTES["information"](tmp_path)
