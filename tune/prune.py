"""`infosam prune`: gives back the space of old sweeps by rule, and says first what it would do.

A sweep is looked at under the lock of its event log, so one that is running or being resumed is never touched. What the
registry names as champion, challenger or previous is kept whole; a registry that does not answer keeps everything."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.filesize import decimal
from rich.table import Table

from infosam.errors import UserError
from tune.champions.registry import RegistryUnreachable, exists, open_registry
from tune.console import wide_console
from tune.event_log import NAME, EventLog, is_written
from tune.group import GROUP_FILE, member_folders
from tune.home import Home, find_home
from tune.ledger import Ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
SCRATCH = ("slots", "tune*", "finals*")
"""What Ray keeps in a sweep's folder while it runs."""
_PLAIN: Any = {"highlight": False, "soft_wrap": True, "markup": False}


class Kind(StrEnum):
    """What can be removed."""

    checkpoints = "checkpoints"
    bundles = "bundles"
    sweeps = "sweeps"
    runs = "runs"
    caches = "caches"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is old enough."""

    kinds: frozenset[Kind]
    older_than_s: float  # since the last event of a sweep
    keep_last: int  # newest sweeps that keep their folder and their runs


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a registry names."""

    used: frozenset[tuple[str, str]]  # sweep and trial of every version with an alias
    cards: frozenset[str]  # SHA-256 of the cards of those versions
    runs: frozenset[str]  # of every version, in use or not: its files lie there


@dataclass(frozen=True, kw_only=True)
class Removal:
    """One thing to remove: files, or runs of a tracking store."""

    kind: Kind
    owner: str  # sweep, or cached champion
    paths: tuple[Path, ...] = ()
    size: int = 0  # bytes of the files; those of runs become free with `mlflow gc`
    uri: str = ""
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was removed, or would be, and which sweeps were left whole for a reason worth telling."""

    removals: Sequence[Removal]
    kept: dict[str, str]


def prune_command(
    older_than: Annotated[str, typer.Option(help="Leave alone what is younger: 30d, 12h, 1d12h.")] = "30d",
    keep_last: Annotated[int, typer.Option(min=0, help="Newest sweeps that are kept whatever their age.")] = 5,
    what: Annotated[list[Kind] | None, typer.Option(help="Only this; may be repeated. Default: all.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of sweeps; default: that of the results folder.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this it is only shown.")] = False,
) -> None:
    """Remove what old sweeps left behind; shows it only, until --yes.

    Champions, their predecessors and challengers are never touched, nor is a sweep that is running.
    """
    rule = Rule(kinds=frozenset(what or Kind), older_than_s=parse_age(older_than), keep_last=keep_last)
    show(prune(find_home(), rule, sweeps=folder, remove=yes), removed=yes)


def parse_age(text: str) -> float:
    """Seconds of an age such as 30d or 1d12h. Raises UserError."""
    if not re.fullmatch(r"(\d+[dhms])+", text):
        raise UserError(f"--older-than: expected an age such as 30d, 12h or 1d12h, got {text!r}")
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


def prune(home: Home, rule: Rule, *, sweeps: Path | None = None, remove: bool = False) -> Pruned:
    """Finds what the rule gives free, and removes it if told so. Raises UserError for a folder that is not there.

    Args:
        sweeps: folder of sweeps, by default that of `home`."""
    if sweeps is not None and not sweeps.is_dir():
        raise UserError(f"--folder {sweeps}: there is no such folder")
    logs = sorted((sweeps or home.sweeps).glob(f"*/{NAME}"), key=lambda log: log.stat().st_mtime, reverse=True)
    oldest = time.time() - rule.older_than_s
    registries = _Registries()
    removals: list[Removal] = []
    kept: dict[str, str] = {}
    for place, log in enumerate(logs):
        if log.stat().st_mtime > oldest:
            continue
        try:
            with _held(log, lock=remove):
                found = list(_of_sweep(log, rule, home, registries, newest=place < rule.keep_last))
                if remove:
                    _carry_out(found)
        except (UserError, _Kept) as reason:
            kept[log.parent.name] = str(reason)
        else:
            removals += found
    found = list(_of_groups(sweeps or home.sweeps, rule, oldest, removals))
    if remove:
        _carry_out(found)
    removals += found
    if Kind.caches in rule.kinds:
        folders = {home.sweeps, sweeps or home.sweeps}
        found = [
            *_of_caches(home, oldest, registries),
            *_of_stores(home, oldest),
            *_of_copies(home, oldest, folders, removals),
        ]
        if remove:
            _carry_out(found)
        removals += found
    return Pruned(removals=removals, kept=kept)


class _Kept(Exception):
    pass


@contextlib.contextmanager
def _held(log: Path, *, lock: bool) -> Iterator[None]:
    """No driver begins or goes on with the sweep inside. Raises UserError, or _Kept if one runs."""
    if is_written(log):
        raise _Kept("it is running")
    if not lock:
        yield
        return
    with contextlib.closing(EventLog(log)):
        yield


def _of_sweep(log: Path, rule: Rule, home: Home, registries: _Registries, *, newest: bool) -> Iterator[Removal]:
    ledger = Ledger.replay(log)
    folder, name = log.parent, log.parent.name
    if ledger.sweep is None:
        raise _Kept("its event log is empty")
    settings = yaml.safe_load(ledger.sweep.settings) or {}
    uri = (settings.get("tracking") or {}).get("uri") or home.tracking_uri
    named = registries.named(uri)
    used = {trial for sweep, trial in named.used if sweep == ledger.sweep.sweep_id}
    goes = not newest and not used
    if goes and Kind.runs in rule.kinds:
        runs = [run for run in registries.runs_of(uri, ledger.sweep.sweep_id) if run not in named.runs]
        if runs:
            yield Removal(kind=Kind.runs, owner=name, uri=uri, runs=tuple(runs))
    if goes and Kind.sweeps in rule.kinds:
        yield from _files(Kind.sweeps, name, [folder])
        return
    if ledger.end is None or ledger.end.reason in ("user", "driver_died"):
        return  # somebody may resume it
    best = ledger.champion()
    chosen = {one.trial_id for one in (best, ledger.test, ledger.promotion) if one}
    trials = [trial for trial in folder.glob("trials/*") if trial.name not in used]
    if Kind.checkpoints in rule.kinds:
        states = [trial / "checkpoints" for trial in trials if trial.name not in chosen or (trial / "bundle").is_dir()]
        scratch = [path for pattern in SCRATCH for path in folder.glob(pattern) if path.is_dir()]
        yield from _files(Kind.checkpoints, name, [*states, *scratch])
    if Kind.bundles in rule.kinds:
        yield from _files(Kind.bundles, name, [trial / "bundle" for trial in trials if trial.name not in chosen])


def _of_groups(sweeps: Path, rule: Rule, oldest: float, removals: Sequence[Removal]) -> Iterator[Removal]:
    """What sweeps that shared their slots left together, see `tune.group`; all of it once none of them is there."""
    gone = {path for removal in removals if removal.kind == Kind.sweeps for path in removal.paths}
    for file in sorted(sweeps.glob(f"*/{GROUP_FILE}")):
        with contextlib.suppress(UserError):  # edited by hand: not ours to judge
            left = [folder / NAME for folder in member_folders(file) if folder.is_dir() and folder not in gone]
            if not left and Kind.sweeps in rule.kinds:
                yield from _files(Kind.sweeps, file.parent.name, [file.parent])
            elif Kind.checkpoints in rule.kinds and all(_is_idle(log, oldest) for log in left):
                scratch = [path for pattern in SCRATCH for path in file.parent.glob(pattern) if path.is_dir()]
                yield from _files(Kind.checkpoints, file.parent.name, scratch)


def _is_idle(log: Path, oldest: float) -> bool:
    return log.is_file() and log.stat().st_mtime <= oldest and not is_written(log)


def _of_caches(home: Home, oldest: float, registries: _Registries) -> Iterator[Removal]:
    """Fetched bundles named after their card's digest, see `tune.champions.lookup`."""
    cached = [path for path in (home.folder / "champions").glob("*") if path.lstat().st_mtime <= oldest]
    if not cached:
        return
    with contextlib.suppress(_Kept):
        cards = registries.named(home.tracking_uri).cards
        for path in sorted(cached):
            if not any(path.name.endswith(f"-{card[:16]}") for card in cards):
                yield from _files(Kind.caches, path.name, [path])


def _of_stores(home: Home, oldest: float) -> Iterator[Removal]:
    """What trials shared on a machine and nobody uses any more, see `tune.encoding_stores`."""
    for folder in sorted(path for path in home.encodings.glob("*") if path.is_dir()):
        from infosam.tensor_store import unused  # torch, only where there is something

        if paths := tuple(unused(folder, oldest)):
            size = sum(path.stat().st_size for path in paths)
            yield Removal(kind=Kind.caches, owner=f"{home.encodings.name}/{folder.name}", paths=paths, size=size)


def _of_copies(home: Home, oldest: float, folders: set[Path], removals: Sequence[Removal]) -> Iterator[Removal]:
    """Data sets copied out of a bucket that no sweep names any more, see `tune.remote_data`."""
    from tune.plan import SETTINGS_FILE  # slow to import, and every `infosam` would pay it

    gone = {path for removal in removals if removal.kind == Kind.sweeps for path in removal.paths}
    written = (file for folder in folders for file in folder.glob(f"*/{SETTINGS_FILE}") if file.parent not in gone)
    settings = [file.read_text(encoding="utf-8", errors="replace") for file in written]
    for path in sorted(home.remote.glob("*")):
        if path.lstat().st_mtime <= oldest and not any(path.name in text for text in settings):
            yield from _files(Kind.caches, f"{home.remote.name}/{path.name}", [path])


def _files(kind: Kind, owner: str, paths: Sequence[Path]) -> Iterator[Removal]:
    there = tuple(path for path in paths if path.is_dir())
    if there:
        files = (file for path in there for file in path.rglob("*"))
        size = sum(file.lstat().st_size for file in files if file.is_file())
        yield Removal(kind=kind, owner=owner, paths=there, size=size)


class _Registries:
    """Asks every tracking store once. Raises _Kept where one does not answer: nobody knows what it names."""

    def __init__(self) -> None:
        self._named: dict[str, Named | str] = {}

    def named(self, uri: str) -> Named:
        if uri not in self._named:
            try:
                self._named[uri] = _named(uri)
            except RegistryUnreachable as problem:
                self._named[uri] = str(problem)
        found = self._named[uri]
        if isinstance(found, str):
            raise _Kept(f"nobody can say whether it holds a champion: {found}")
        return found

    def runs_of(self, uri: str, sweep_id: str) -> list[str]:
        """Ids of a sweep's runs that are not marked as deleted, trials before their parent."""
        if not exists(uri):
            return []
        with open_registry(uri) as registry:
            found = _runs(registry.client, f"tags.sweep_id = '{sweep_id}'")
        return sorted(found, key=lambda run: not found[run])


def _named(uri: str) -> Named:
    from tune.champions.lookup import CARD_DIGEST

    if not exists(uri):
        return Named(used=frozenset(), cards=frozenset(), runs=frozenset())
    with open_registry(uri) as registry:
        versions = [version for domain in registry.domains() for version in registry.versions(domain)]
    used = [version for version in versions if version.aliases]
    return Named(
        used=frozenset((version.tags.get("sweep_id", ""), version.tags.get("trial_id", "")) for version in used),
        cards=frozenset(version.tags.get(CARD_DIGEST, "") for version in used),
        runs=frozenset(version.run_id for version in versions),
    )


def _runs(client: MlflowClient, wanted: str) -> dict[str, bool]:
    """Ids of the runs that fit, and whether each is a child."""
    experiments, page = [], None
    while True:
        some = client.search_experiments(page_token=page)
        experiments += [experiment.experiment_id for experiment in some]
        page = some.token
        if not page:
            break
    found: dict[str, bool] = {}
    while experiments:
        runs = client.search_runs(experiments, wanted, page_token=page)
        found |= {run.info.run_id: "mlflow.parentRunId" in run.data.tags for run in runs}
        page = runs.token
        if not page:
            break
    return found


def _carry_out(removals: Sequence[Removal]) -> None:
    for removal in removals:
        if removal.runs:
            with open_registry(removal.uri) as registry:
                for run in removal.runs:
                    registry.client.delete_run(run)
        for path in removal.paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def show(pruned: Pruned, *, removed: bool) -> None:
    """Prints what was or would be removed, what was left, and what to do next."""
    console = wide_console()
    for name, reason in pruned.kept.items():
        console.print(f"{name} is kept: {reason}", **_PLAIN)
    if not pruned.removals:
        console.print("Nothing to remove.")
        return
    table = Table("what", "of", "how much")
    for removal in pruned.removals:
        much = f"{len(removal.runs)} runs" if removal.runs else decimal(removal.size)
        table.add_row(removal.kind.value, removal.owner, much)
    console.print(table)
    size = decimal(sum(removal.size for removal in pruned.removals))
    console.print(f"{size} removed." if removed else f"{size} would be removed; add --yes to do it.", highlight=False)
    for uri in sorted({removal.uri for removal in pruned.removals if removal.runs}):
        console.print(f"MLflow keeps the files of deleted runs until you run: {gc_command(uri)}", **_PLAIN)


def gc_command(uri: str) -> str:
    """How the runs that MLflow has marked as deleted are removed for good."""
    database = shlex.quote(uri) if uri.startswith("sqlite:") else "DATABASE_OF_THE_SERVER"
    return f"mlflow gc --tracking-uri {shlex.quote(uri)} --backend-store-uri {database}"
