"""The columns of an imported data set, and the sizes of its files.

The schema carries Hugging Face's `Image` features, so `datasets` and Ray Data open the files as they are.
"""

from __future__ import annotations

import json

import pyarrow as pa

from infosam.data.card import SCHEMA_VERSION

ROW_GROUP_ROWS = 64
ROW_GROUP_MIB = 128  # huge pictures make smaller row groups, so that reading one stays cheap
SHARD_MIB = 128  # pictures and masks after which the next file begins: with one more row group at most twice as much

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
    "source_sha256": pa.string(),  # of the image file as it was found; not in files of version 1
}
ADDED_LATER = {"source_sha256"}
_HUGGINGFACE_NAMES = {pa.string(): "string", pa.int32(): "int32", pa.float64(): "float64"}


def parquet_schema() -> pa.Schema:
    """Columns with types, and as metadata the Hugging Face feature description (`huggingface`) and the version of these
    columns (`infosam`)."""
    features = {
        name: {"_type": "Image"} if kind == _PICTURE else {"dtype": _HUGGINGFACE_NAMES[kind], "_type": "Value"}
        for name, kind in _COLUMNS.items()
    }
    # All nullable, though only `group` is ever null: `datasets` ignores the feature of a column declared otherwise.
    fields = [pa.field(name, kind) for name, kind in _COLUMNS.items()]
    described = {
        "huggingface": json.dumps({"info": {"features": features}}),
        "infosam": json.dumps({"schema_version": SCHEMA_VERSION}),
    }
    return pa.schema(fields, metadata=described)
