"""How far a store has taken a sweep's log, kept beside the log: one small file per store."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from infosam.errors import UserError

FOLDER = "tracking"


class Position:
    """The offset up to which everything is written, and the runs that were made. Holds a lock until closed.

    Raises UserError if another process writes this sweep to this store."""

    def __init__(self, log: Path, uri: str) -> None:
        digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
        self._file = log.parent / FOLDER / f"{digest}.json"
        self._file.parent.mkdir(exist_ok=True)
        self._uri = without_password(uri)
        self._lock = self._file.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(
                f"{self._uri}: another process writes {log.parent.name} there at this moment; wait until it is done"
            ) from None
        self.offset = 0
        self.run_ids: Mapping[str, str] = {}
        if self._file.is_file():
            saved = json.loads(self._file.read_text(encoding="utf-8"))
            self.offset, self.run_ids = saved["offset"], saved["runs"]

    def save(self, offset: int, run_ids: Mapping[str, str]) -> None:
        """Remembers that everything before the offset is written."""
        self.offset, self.run_ids = offset, dict(run_ids)
        content = {"uri": self._uri, "offset": offset, "runs": self.run_ids}
        temporary = self._file.with_suffix(".part")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(self._file)

    def close(self) -> None:
        """Lets others write to this store."""
        self._lock.close()


def without_password(uri: str) -> str:
    """A store's address as it may be shown and kept."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}"))
