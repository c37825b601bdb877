"""A table of training runs to search in: every configuration of a domain trained to its full length, epoch by epoch.

One Parquet file for each domain, a row for each configuration and epoch, numbers only. Columns: domain, configuration
(its number), values (the searched settings as JSON), epoch, seed, commit, machine, and every metric under its name,
such as val/box/dice, loss/structure, cost/seconds. The file's metadata says under which settings all of it was trained
and how the untuned model scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FIXED = ("domain", "configuration", "values", "epoch", "seed", "commit", "machine")
KEYS = (b"settings", b"zero_shot")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One configuration, trained to its end."""

    number: int
    values: Mapping[str, Any]  # searched settings by dotted path
    epochs: Sequence[Mapping[str, float]]  # metrics of each epoch, from the first
    seed: int = 0
    commit: str = "unknown"
    machine: str = "unknown"

    def curve(self, metric: str = "val/dice") -> list[float]:
        """One metric over the epochs."""
        return [epoch[metric] for epoch in self.epochs]


@dataclass(kw_only=True)
class DomainTable:
    """All runs of one domain; `settings` are what they have in common, `zero_shot` is the untuned model."""

    domain: str
    settings: Mapping[str, Any]
    zero_shot: Mapping[str, float]
    runs: dict[int, Run] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """The highest validation Dice of any run."""
        return max(max(run.curve()) for run in self.runs.values())


def write_domain(table: DomainTable, folder: Path) -> Path:
    """Writes a domain's file, whole or not at all; runs in the order of their numbers."""
    rows = [
        {
            "domain": table.domain,
            "configuration": run.number,
            "values": json.dumps(run.values, sort_keys=True),
            "epoch": epoch,
            "seed": run.seed,
            "commit": run.commit,
            "machine": run.machine,
            **metrics,
        }
        for run in sorted(table.runs.values(), key=lambda run: run.number)
        for epoch, metrics in enumerate(run.epochs, 1)
    ]
    metrics = sorted({name for row in rows for name in row} - {*FIXED})
    columns = {name: [row.get(name) for row in rows] for name in (*FIXED, *metrics)}
    meta = {"settings": json.dumps(table.settings, sort_keys=True), "zero_shot": json.dumps(table.zero_shot)}
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{table.domain}.parquet"
    temporary = out.with_suffix(".part")
    pq.write_table(pa.table(columns).replace_schema_metadata(meta), temporary, compression="zstd")
    temporary.replace(out)
    return out


def read_domain(file: Path) -> DomainTable:
    """A domain's file."""
    content = pq.read_table(file)
    meta = {key.decode(): json.loads(value) for key, value in content.schema.metadata.items() if key in KEYS}
    runs: dict[int, Run] = {}
    for row in content.to_pylist():
        fixed = {name: row.pop(name) for name in FIXED}
        metrics = {name: value for name, value in row.items() if value is not None}
        known = runs.get(fixed["configuration"])
        runs[fixed["configuration"]] = Run(
            number=fixed["configuration"],
            values=json.loads(fixed["values"]),
            epochs=[*(known.epochs if known else ()), metrics],
            seed=fixed["seed"],
            commit=fixed["commit"],
            machine=fixed["machine"],
        )
    return DomainTable(domain=file.stem, settings=meta["settings"], zero_shot=meta["zero_shot"], runs=runs)


def read_table(folder: Path) -> dict[str, DomainTable]:
    """All domains of a folder by name."""
    return {file.stem: read_domain(file) for file in sorted(folder.glob("*.parquet"))}
