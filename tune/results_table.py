"""The results of a sweep as one Parquet table: a row per trial and epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tune.events import EpochReported
from tune.ledger import Ledger
from tune.trial_ids import role_of


def write_results(ledger: Ledger, epochs: Mapping[str, Sequence[EpochReported]], out: Path) -> Path:
    """Writes the table to `out`, completely or not at all. A trial without an epoch has one row with null in it.

    Columns: trial, role, state, stop_reason, error, epoch, at (UTC), the searched values under their paths, the
    metrics under their names. A value that is a number in some trials and text in others is text.

    Args:
        epochs: of each trial, in the order in which they were reported."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = []
    for trial in ledger.trials.values():
        end = trial.end
        common = {
            "trial": trial.trial_id,
            "role": role_of(trial.trial_id),
            "state": end.state if end else "RUNNING",
            "stop_reason": end.reason if end else None,
            "error": end.error if end else None,
            **trial.values,
        }
        reported = epochs.get(trial.trial_id) or ()
        rows += [{**common, "epoch": one.epoch, "at": int(one.at * 1e6), **one.values} for one in reported]
        if not reported:
            rows.append(common)
    names = ["trial", "role", "state", "stop_reason", "error", "epoch", "at"]
    names += sorted({name for row in rows for name in row} - {*names})
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    columns["at"] = pa.array([row.get("at") for row in rows], pa.timestamp("us", tz="UTC"))
    temporary = out.with_suffix(".part")
    pq.write_table(pa.table(columns), temporary)
    temporary.replace(out)
    return out


def _column(values: Sequence[Any]) -> Any:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])
    if len(kinds) > 1 or not kinds <= {int, float, bool, str}:
        return pa.array([None if value is None else str(value) for value in values])
    return pa.array(values, None if kinds else pa.string())
