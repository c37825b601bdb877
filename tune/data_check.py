"""What `infosam data check` finds in the data of a sweep, before the sweep costs anything."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from infosam import __version__
from infosam.config import ModelConfig
from infosam.data.card import DatasetCard, read_card
from infosam.data.check.findings import KINDS
from infosam.data.check.run import MASK_PX, Report, by_kind, check_source
from infosam.data.console import progress
from infosam.errors import DataError, UserError
from infosam.sam.architectures import architecture
from tune.home import Home
from tune.plan import write_whole

SHOWN_ERRORS = 5  # of a kind


def check_data(data: Path, model: ModelConfig, home: Home, console: Console, *, remember: bool = True) -> None:
    """Looks at every image and mask of a data set, once for each content and size of the model's masks, and prints what
    makes results doubtful.

    Blank masks are no error any more: the import asked for consent. Raises DataError for errors, which are looked for
    again the next time, and for a folder that is no data set."""
    mask_px = architecture(model.name, model.image_px).mask_px
    card = read_card(data)
    record = home.checks / f"{card.digest}-{mask_px}.json"
    files = _state(card)
    counts = _read(record, files)
    if counts is None:
        with progress(console, "Checking data") as bar:
            report = check_source(data, allow_empty=True, mask_px=mask_px, progress=bar)
        if report.count("error"):
            raise _refusal(data, report, mask_px)
        counts = Counter(finding.kind.name for finding in report.findings if finding.kind.severity == "warning")
        if remember:
            _write(record, counts, files)
    for name, count in counts.items():
        said = f"{data}: {name} ({count:,}): {KINDS[name].why}; {KINDS[name].cure}. See: {_again(data, mask_px)}"
        console.print(Text("data: ", style="yellow") + Text(said), soft_wrap=True)


def _again(data: Path, mask_px: int) -> str:
    return f"infosam data check {data}" + f" --mask-px {mask_px}" * (mask_px != MASK_PX)


def _refusal(data: Path, report: Report, mask_px: int) -> DataError:
    """The first errors of each kind: a thousand of one must not hide the one of another."""
    lines = []
    for name, found in by_kind(tuple(one for one in report.findings if one.kind.severity == "error")).items():
        lines += [f"{name}: {finding.row or finding.file}: {finding.what}" for finding in found[:SHOWN_ERRORS]]
        if len(found) > SHOWN_ERRORS:
            lines.append(f"{name}: ... and {len(found) - SHOWN_ERRORS:,} more")
    return DataError(f"{data}: unfit to train on; see {_again(data, mask_px)}\n  " + "\n  ".join(lines))


def _state(card: DatasetCard) -> dict[str, list[int]]:
    """Size and time of each file: what was damaged after a look has to be looked at again."""
    found = {shard.name: card.path / shard.name for shard in card.shards}
    return {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in found.items() if path.is_file()}


def _read(record: Path, files: dict[str, list[int]]) -> Counter[str] | None:
    """Warnings of an earlier look at these very files by this version; None if there was none that can be read."""
    try:
        found: Any = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and (found.get("version"), found.get("files")) == (__version__, files)
    return Counter({name: int(count) for name, count in found["warnings"].items()}) if known else None


def _write(record: Path, counts: Counter[str], files: dict[str, list[int]]) -> None:
    """Without it the next sweep looks again: no reason to stop this one."""
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_whole(record, json.dumps({"version": __version__, "files": files, "warnings": counts}) + "\n")
    except (OSError, UserError):
        return
