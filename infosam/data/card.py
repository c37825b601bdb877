"""What is known of an imported data set without opening its images: `dataset.json` beside them.

Knows no image library, so that a command can say what is wrong with a folder before anything heavy is loaded."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from infosam.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SCHEMA_VERSION = 2
CARD_NAME = "dataset.json"
OLD_SHARD = "data.parquet"  # version 1 knew one file only, and the card did not name it
SHARD_NAME = re.compile(r"data/part-\d{5}\.parquet|data\.parquet")
DOMAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
DIGEST = re.compile(r"[0-9a-z]{1,64}")
MOVES_NAME = re.compile(r"splits-[0-9a-f]{8}\.parquet")
UNFINISHED = re.compile(r"data/\.part-\d+\.partial|\.splits-[0-9a-f]{8}\.parquet\.partial|\.dataset\.json\.partial")
OURS = (SHARD_NAME, MOVES_NAME, UNFINISHED)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file with rows of a data set."""

    name: str  # relative to the folder of the card
    rows: int
    sha256: str | None  # of the file; not known of a file of version 1


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """What is known of a data set without opening its images."""

    domain: str
    digest: str  # sha256 over ids, splits, image files and mask pixels, in any row order
    counts: dict[str, int]  # rows per split; a split without rows is 0
    path: Path  # folder the card was read from or written to
    notes: tuple[str, ...] = ()  # what the import decided by itself, such as a split it made
    shards: tuple[Shard, ...] = ()  # in the order of the rows
    moves: str | None = None  # file with the splits that count, after a re-split; the column `split` is older then
    written: bool = True  # False: the import found this very data set already there and wrote nothing


def foreign(card: DatasetCard) -> list[str]:
    """Files in the folder of a data set that are not its own; what a stopped command left is."""
    files = (path for path in card.path.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(card.path).as_posix() for path in files)
    return sorted(name for name in names if not (name == CARD_NAME or any(one.fullmatch(name) for one in OURS)))


def write_card(folder: Path, card: DatasetCard) -> None:
    """Writes `dataset.json` into `folder`, whole or not at all; an older one is the data set until then.

    The folder's own path is not stored, so it can be moved."""
    text = json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "domain": card.domain,
            "digest": card.digest,
            "counts": card.counts,
            "notes": list(card.notes),
            "shards": [asdict(shard) for shard in card.shards],
            "splits": card.moves,
        },
        indent=2,
    )
    partial = folder / f".{CARD_NAME}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / CARD_NAME)


def read_card(folder: Path) -> DatasetCard:
    """The card of an imported data set. Raises DataError if there is none, it is damaged, or too new."""
    path = folder / CARD_NAME
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version not in range(1, SCHEMA_VERSION + 1):
            raise DataError(
                f"{path}: schema version {version!r}, this infosam reads 1 to {SCHEMA_VERSION}: "
                "import the source again, or use the version of infosam that wrote it"
            )
        counts: dict[str, int] = {split: int(content["counts"][split]) for split in SPLITS}
        return DatasetCard(
            domain=_matching(DOMAIN, content["domain"]),
            digest=_matching(DIGEST, content["digest"]),
            counts=counts,
            path=folder,
            notes=tuple(str(note) for note in content.get("notes", ())),
            shards=_shards(content, version, sum(counts.values())),
            moves=_matching(MOVES_NAME, content.get("splits")) if content.get("splits") else None,
        )
    except FileNotFoundError:
        raise DataError(_no_card(folder)) from None
    except DataError:
        raise
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"not a readable description of a data set ({type(error).__name__}: {error})"
        raise DataError(f"{path}: {reason}; import the source again") from error


def _shards(content: Any, version: int, rows: int) -> tuple[Shard, ...]:
    if version == 1:
        return (Shard(name=OLD_SHARD, rows=rows, sha256=None),)
    return tuple(
        Shard(name=_matching(SHARD_NAME, one["name"]), rows=int(one["rows"]), sha256=one["sha256"])
        for one in content["shards"]
    )


def _matching(pattern: re.Pattern[str], name: object) -> str:
    """A name as ours are: a card from a stranger must not lead out of its folder, or that of copies."""
    if not pattern.fullmatch(str(name)):
        raise ValueError(f"{name!r} is no name that infosam gives")
    return str(name)


AUTO, PLAIN = "auto", "none"
"""What users say instead of a domain: let the picture decide, and frozen SAM without an adapter."""


def check_domain(domain: str) -> None:
    """Raises DataError unless `domain` can be part of file and model names everywhere."""
    if not DOMAIN.fullmatch(domain):
        raise DataError(
            f"domain {domain!r}: use 1 to 64 letters, digits, '-' or '_', starting with a letter or digit; "
            "it becomes part of model and folder names"
        )
    if domain in (AUTO, PLAIN):
        raise DataError(f"domain {domain!r}: is what people say instead of a domain; choose another name")


def address_in(path: Path) -> str | None:
    """The address, such as s3://bucket/set, given for a path, which loses a slash; None for real paths."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/+(.+)", str(path))
    return f"{found[1]}://{found[2]}" if found else None


def _no_card(folder: Path) -> str:
    if not folder.exists():
        if url := address_in(folder):
            return f"{url}: only folders on this machine are read; copy it here first with `infosam data pull {url}`"
        command = f"infosam data import SRC --domain NAME --out {folder}"
        return f"{folder}: no such folder; make the data set with `{command}`"
    return (
        f"{folder}: not an imported data set (no {CARD_NAME} in it); "
        f"import it first with `infosam data import {folder} --domain NAME --out DIR` and give DIR"
    )
