"""Data sets as version 1 wrote them: one file, no sums of picture files, a card that names no files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def aged(folder: Path) -> Path:
    """Rewrites a data set of today into the old form, in place."""
    tables = [pq.read_table(path) for path in sorted((folder / "data").glob("*.parquet"))]
    table = pa.concat_tables(tables).drop_columns(["source_sha256"])
    described = json.loads(table.schema.metadata[b"huggingface"])
    del described["info"]["features"]["source_sha256"]
    table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
    pq.write_table(table, folder / "data.parquet", row_group_size=64)
    shutil.rmtree(folder / "data")
    card = json.loads((folder / "dataset.json").read_text())
    kept = {name: card[name] for name in ("domain", "digest", "counts", "notes")}
    (folder / "dataset.json").write_text(json.dumps({"schema_version": 1, **kept}))
    return folder
