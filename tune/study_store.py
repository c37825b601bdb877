"""Where Optuna keeps the study of a sweep, and opening it: new for a new sweep, as it was left for a resumed one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection

from infosam.errors import UserError
from tune.config import SearchConfig
from tune.config.search import URL_VARIABLE


def open_study(
    name: str, search: SearchConfig, journal: Path | None, directions: Sequence[StudyDirection], *, resume: bool
) -> optuna.Study:
    """The study called `name`: created, and with `resume` taken up if it is there.

    Args:
        journal: file of storage journal; None keeps the study in memory.

    Raises UserError for a name that is taken, and for a database that cannot be used."""
    storage = _storage(search, journal)
    try:
        return optuna.create_study(study_name=name, directions=directions, storage=storage, load_if_exists=resume)
    except DuplicatedStudyError:
        where = journal if isinstance(storage, JournalStorage) else "the database of search.url"
        raise UserError(
            f"{where} already holds a study named {name!r}, and two sweeps never share one: set another name, or "
            "resume that sweep"
        ) from None


def _storage(search: SearchConfig, journal: Path | None) -> BaseStorage:
    if search.storage == "rdb":
        return _database(search)
    if journal is None:
        return InMemoryStorage()
    _cut_torn_line(journal)
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=_OnlyOneDriver(str(journal))))


def _database(search: SearchConfig) -> RDBStorage:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    text = search.url or os.environ.get(URL_VARIABLE)
    if not text:
        raise UserError(f"search.storage is rdb: set search.url, or the environment variable {URL_VARIABLE}")
    try:
        shown = make_url(text).render_as_string(hide_password=True)
    except ArgumentError:
        raise UserError(f"search.url or {URL_VARIABLE} is not an SQLAlchemy URL such as sqlite:///FILE") from None
    try:
        return RDBStorage(text)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        # Only the kind of error: drivers like to put the whole URL, password included, into their messages.
        raise UserError(
            f"the study's database {shown} cannot be used ({type(error).__name__}); check search.url or {URL_VARIABLE}"
        ) from None


def _cut_torn_line(journal: Path) -> None:
    """Drops what a writer that died left of its last line: Optuna would take the next line for its continuation."""
    try:
        content = journal.read_bytes()
    except FileNotFoundError:
        return
    if not content.endswith(b"\n") and content:
        os.truncate(journal, content.rfind(b"\n") + 1)


class _OnlyOneDriver(JournalFileSymlinkLock):
    """No lock: the event log sees to it that a sweep has one driver, and a lock file would outlive a killed one."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        """Nothing was taken."""
