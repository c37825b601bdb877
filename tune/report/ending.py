"""The report at the end of a sweep, which must not be the reason for another end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from tune.events import SweepEnded


def with_report(folder: Path, ended: SweepEnded, warn: Callable[[str], None]) -> SweepEnded:
    """The end of a sweep with the report among its files; without it, and with a warning, if it cannot be written."""
    try:
        from tune.report.page import write_report
        from tune.report.record import open_record

        page = write_report(open_record(folder, ended))
    except Exception as error:  # noqa: BLE001 - drawing libraries may raise anything, and the end must be recorded
        why = f"{type(error).__name__}: {error}"
        warn(f"The report could not be written ({why}); infosam report {folder.name} tries again")
        return ended
    return dataclasses.replace(ended, files=(*ended.files, page.name))
