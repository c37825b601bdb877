from __future__ import annotations

from pathlib import Path

import pytest
from spoiled import disc, photo, save


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Eight good pairs with all three splits, nothing to find."""
    source = tmp_path / "clean"
    for number in range(8):
        split = ("train", "train", "train", "train", "val", "val", "test", "test")[number]
        save(source, f"{split}/{number}.png", photo(number), disc())
    return source
