"""docs/sweep-file.md says what the models say."""

from __future__ import annotations

from pathlib import Path

from tune.config import SearchConfig
from tune.config.search import PAIRS
from tune.sweep_reference import sweep_reference

PAGE = Path(__file__).parents[2] / "docs" / "sweep-file.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == sweep_reference(), (
        "a key changed: python -m tune.sweep_reference > docs/sweep-file.md"
    )


def test_the_page_has_every_key_with_its_bounds() -> None:
    page = sweep_reference()
    assert all(f"| `{name}` |" in page for name in SearchConfig.model_fields)
    assert "| `hours` | number > 0 or `null` | `null` | Wall time" in page
    assert "### run.peft (kind: conv_lora)" in page
    assert all(f"| `{sampler}` |" in page for sampler in PAIRS)
