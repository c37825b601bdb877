"""What is known of an imported data set without opening its images: `dataset.json` beside them.

Knows no image library, so that a command can say what is wrong with a folder before anything heavy is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from infosam.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SCHEMA_VERSION = 1
CARD_NAME = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """What is known of a data set without opening its images."""

    domain: str
    digest: str  # sha256 over ids, splits, image files and mask pixels, in any row order
    counts: dict[str, int]  # rows per split; a split without rows is 0
    path: Path  # folder the card was read from or written to
    notes: tuple[str, ...] = ()  # what the import decided by itself, such as a split it made
    written: bool = True  # False: the import found this very data set already there and wrote nothing


def write_card(folder: Path, card: DatasetCard) -> None:
    """Writes `dataset.json` into `folder`; the folder's own path is not stored, so it can be moved."""
    text = json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "domain": card.domain,
            "digest": card.digest,
            "counts": card.counts,
            "notes": list(card.notes),
        },
        indent=2,
    )
    (folder / CARD_NAME).write_text(text + "\n", encoding="utf-8")


def read_card(folder: Path) -> DatasetCard:
    """The card of an imported data set. Raises DataError if there is none, it is damaged, or too new."""
    path = folder / CARD_NAME
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path}: schema version {version!r}, this infosam reads {SCHEMA_VERSION}: "
                "import the source again, or use the version of infosam that wrote it"
            )
        counts: dict[str, int] = {split: int(content["counts"][split]) for split in SPLITS}
        return DatasetCard(
            domain=str(content["domain"]),
            digest=str(content["digest"]),
            counts=counts,
            path=folder,
            notes=tuple(str(note) for note in content.get("notes", ())),
        )
    except FileNotFoundError:
        raise DataError(_no_card(folder)) from None
    except DataError:
        raise
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"not a readable description of a data set ({type(error).__name__}: {error})"
        raise DataError(f"{path}: {reason}; import the source again") from error


def check_domain(domain: str) -> None:
    """Raises DataError unless `domain` can be part of file and model names everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", domain):
        raise DataError(
            f"domain {domain!r}: use 1 to 64 letters, digits, '-' or '_', starting with a letter or digit; "
            "it becomes part of model and folder names"
        )


def _no_card(folder: Path) -> str:
    if not folder.exists():
        command = f"infosam data import SRC --domain NAME --out {folder}"
        return f"{folder}: no such folder; make the data set with `{command}`"
    return (
        f"{folder}: not an imported data set (no {CARD_NAME} in it); "
        f"import it first with `infosam data import {folder} --domain NAME --out DIR` and give DIR"
    )
