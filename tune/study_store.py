"""Where Optuna keeps the study of a sweep, and opening it: new for a new sweep, as it was left for a resumed one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection

from infosam.errors import UserError
from tune.config import SearchConfig
from tune.config.search import URL_VARIABLE

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

DATABASE = "the database of search.url"

OWNER = "sweep_start"
"""User attribute of a study: when its sweep began, which tells it from one of the same name from another machine."""


def open_study(
    name: str,
    search: SearchConfig,
    journal: Path | None,
    directions: Sequence[StudyDirection],
    *,
    owner: str = "",
    resume: bool,
) -> optuna.Study:
    """The study called `name`: created, and with `resume` taken up if it is there.

    Args:
        journal: file of storage journal; None keeps the study in memory.
        owner: what tells the sweep from others of its name; kept with the study, and compared.

    Raises UserError for a name that is taken, and for a database that cannot be used."""
    storage = _storage(search, journal)
    where = str(journal) if isinstance(storage, JournalStorage) else DATABASE
    try:
        study = optuna.create_study(study_name=name, directions=directions, storage=storage, load_if_exists=resume)
    except DuplicatedStudyError:
        raise _taken(name, where) from None
    if not _belongs(study.user_attrs, len(study.get_trials(deepcopy=False)), owner):
        raise _foreign(name, where)
    study.set_user_attr(OWNER, owner)
    return study


def check_study(name: str, search: SearchConfig, owner: str | None) -> None:
    """Refuses what `open_study` would of storage rdb, before there is anything of a sweep, and writes nothing.

    Args: owner: as there; None for a new sweep, whose name must be free.

    Raises UserError."""
    from sqlalchemy import inspect
    from sqlalchemy.exc import SQLAlchemyError

    url = _url(search)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        folder = Path(url.database or "").absolute().parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f"{folder}: cannot be written to; check search.url or {URL_VARIABLE}")
        return  # opening it would make it
    storage = _database(url, skip_compatibility_check=True, skip_table_creation=True)
    try:
        if not inspect(storage.engine).has_table("studies"):
            return
        found = next((study for study in storage.get_all_studies() if study.study_name == name), None)
        if found is None:
            return
        if owner is None:
            raise _taken(name, DATABASE)
        if not _belongs(found.user_attrs, storage.get_n_trials(found._study_id), owner):
            raise _foreign(name, DATABASE)
    except SQLAlchemyError as error:
        raise _unfit(url, error) from None
    finally:
        storage.engine.dispose()


def _belongs(attributes: Mapping[str, Any], trials: int, owner: str) -> bool:
    """Whether a study is the owner's; one without mark and trials is new, or its driver died before it marked it."""
    return attributes[OWNER] == owner if OWNER in attributes else not trials


def _taken(name: str, where: str) -> UserError:
    return UserError(
        f"{where} already holds a study named {name!r}, and two sweeps never share one: set another name, or "
        "resume that sweep"
    )


def _foreign(name: str, where: str) -> UserError:
    return UserError(
        f"{where} holds a study named {name!r} of another sweep, and two sweeps never share one: name the database "
        f"that this sweep began with, or an empty one ({URL_VARIABLE})"
    )


def _storage(search: SearchConfig, journal: Path | None) -> BaseStorage:
    if search.storage == "rdb":
        return _database(_url(search))
    if journal is None:
        return InMemoryStorage()
    _cut_torn_line(journal)
    return JournalStorage(JournalFileBackend(str(journal), lock_obj=_OnlyOneDriver(str(journal))))


def _url(search: SearchConfig) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    text = search.url or os.environ.get(URL_VARIABLE)
    if not text:
        raise UserError(f"search.storage is rdb: set search.url, or the environment variable {URL_VARIABLE}")
    try:
        return make_url(text)
    except ArgumentError:
        raise UserError(f"search.url or {URL_VARIABLE} is not an SQLAlchemy URL such as sqlite:///FILE") from None


def _database(url: URL, **options: Any) -> RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url.render_as_string(hide_password=False), **options)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        raise _unfit(url, error) from None


def _unfit(url: URL, error: Exception) -> UserError:
    # Only the kind of error: drivers like to put the whole URL, password included, into their messages.
    return UserError(
        f"the study's database {url.render_as_string(hide_password=True)} cannot be used ({type(error).__name__}); "
        f"check search.url or {URL_VARIABLE}"
    )


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
