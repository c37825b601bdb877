from __future__ import annotations

import json
from typing import Any

from infosam.data.schema import parquet_schema


def test_every_column_has_a_hugging_face_feature() -> None:
    features: dict[str, Any] = json.loads(parquet_schema().metadata[b"huggingface"])["info"]["features"]
    assert list(features) == parquet_schema().names
    assert features["image"] == features["mask"] == {"_type": "Image"}
    assert all(field.nullable for field in parquet_schema())  # `datasets` drops features of columns that are not
    assert features["width"] == {"dtype": "int32", "_type": "Value"}
