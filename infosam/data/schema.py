"""The columns of an imported data set, `data.parquet`.

The schema carries Hugging Face's `Image` features, so `datasets` and Ray Data open the file as it is.
"""

from __future__ import annotations

import json

import pyarrow as pa

PARQUET_NAME = "data.parquet"
ROW_GROUP_ROWS = 64

_PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_COLUMNS: dict[str, pa.DataType] = {
    "image": _PICTURE,
    "mask": _PICTURE,
    "id": pa.string(),
    "domain": pa.string(),
    "split": pa.string(),
    "group": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "fg_fraction": pa.float64(),
}
_HUGGINGFACE_NAMES = {pa.string(): "string", pa.int32(): "int32", pa.float64(): "float64"}


def parquet_schema() -> pa.Schema:
    """Columns with types, and the Hugging Face feature description under the metadata key `huggingface`."""
    features = {
        name: {"_type": "Image"} if kind == _PICTURE else {"dtype": _HUGGINGFACE_NAMES[kind], "_type": "Value"}
        for name, kind in _COLUMNS.items()
    }
    # All nullable, though only `group` is ever null: `datasets` ignores the feature of a column declared otherwise.
    fields = [pa.field(name, kind) for name, kind in _COLUMNS.items()]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
