"""The scores on the test images, image by image, kept beside the bundle that was scored: a sweep looks at those images
once, and whoever wants the scores afterwards reads this file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tune.champions.lookup import digest_of

if TYPE_CHECKING:
    from infosam.evaluation import EvaluationTable

TEST_SCORES = "test.json"
"""Beside a bundle that was scored on the test images."""


def save_scores(table: EvaluationTable, bundle: Path) -> None:
    """Keeps the scores of a bundle, whole or not at all."""
    from infosam.checkpoint import save_json

    content = {
        "bundle": digest_of(bundle),
        "protocol": table.protocol,
        "rows": [dataclasses.asdict(row) for row in table.rows],
        "images": {f"{model}/{prompt}": scores for (model, prompt), scores in table.per_image.items()},
        "means": {f"{model}/{prompt}": means for (model, prompt), means in table.means.items()},
    }
    save_json(content, bundle.with_name(TEST_SCORES))


def scores_of(bundle: Path) -> EvaluationTable | None:
    """What was kept of exactly this bundle."""
    file = bundle.with_name(TEST_SCORES)
    if not file.is_file() or json.loads(file.read_text(encoding="utf-8"))["bundle"] != digest_of(bundle):
        return None
    return read_scores(file)


def read_scores(file: Path) -> EvaluationTable:
    """What a file holds, whether its bundle is there or not."""
    from infosam.evaluation import EvaluationRow, EvaluationTable

    found = json.loads(file.read_text(encoding="utf-8"))
    images, means = (
        {tuple(key.split("/")): values for key, values in found.get(name, {}).items()} for name in ("images", "means")
    )
    return EvaluationTable(found["protocol"], [EvaluationRow(**row) for row in found["rows"]], images, means)
