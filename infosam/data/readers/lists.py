"""Tables with one image-mask pair per row: CSV, TSV or Parquet, one file with a column `split` or one per split."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infosam.data.card import SPLITS, Split
from infosam.data.pairs import NO_CELLS, Listed, ReadOptions
from infosam.data.readers.contract import Listing, inside
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")
LIKELY_COLUMNS = {
    "image": ["img", "images", "image_path", "path", "file", "file_name", "filename", "image_file", "sat_image_path"],
    "label": ["mask", "masks", "labels", "annotation", "mask_path", "mask_file_name", "mask_file", "segmentation"],
}
Cells = Mapping[str, str]


class Lists:
    """Columns image,label and, if the user likes, split and group; paths relative to the file."""

    layout = "one CSV, TSV or Parquet file with columns image,label[,split,group], or train.csv, val.csv and test.csv"

    def fits(self, source: Path) -> bool:
        if source.is_dir():
            return bool(_per_split(source))
        if source.suffix.lower() == ".parquet":
            return _has_only_paths(source)
        return source.suffix.lower() in SUFFIXES

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        files: list[tuple[Split | None, Path]] = [(None, source)]
        if source.is_dir():
            files = [*_per_split(source)]
        listed: list[Listed] = []
        notes = [*_not_read(source, {path for _, path in files})] if source.is_dir() else []
        for split, path in files:
            elsewhere: dict[str, str] | None = None
            for row, cells in _rows(path, options):
                if elsewhere is None:
                    elsewhere = _elsewhere(path.parent, cells, options)
                    notes += [
                        f"{path.name}: {start!r}, with which paths begin, is not here and was left out"
                        for start in dict.fromkeys(elsewhere.values())
                    ]
                try:
                    listed.append(_listed(path.parent, cells, options, split, row, elsewhere))
                except DataError as problem:
                    problems.append(str(problem))
        return Listing(root=source if source.is_dir() else source.parent, listed=listed, notes=tuple(notes))


def _elsewhere(root: Path, cells: Cells, options: ReadOptions) -> dict[str, str]:
    """Of each column of paths the folders with which its first path begins, if they are those of another machine, or
    lead to the list: what comes after them is there. Paths with '..' are left as they are."""
    found = {}
    for column in (options.image_column, options.mask_column):
        text = cells[column].strip()
        parts = text.split("/")
        with suppress(OSError, ValueError):  # a name that no file can have
            if not text or ".." in parts or (root / text).exists():
                continue
            for start in range(1, len(parts)):
                rest = "/".join(parts[start:])
                if rest and not rest.startswith("/") and (root / rest).is_file():
                    found[column] = text.removesuffix(rest)
                    break
    return found


def unread_lists(folder: Path) -> tuple[str, ...]:
    """A note about lists in a folder whose pictures were paired by their names: one of them may say splits, patients,
    or which masks count."""
    others = _lists_in(folder)
    if not others:
        return ()
    shown = ", ".join(path.name for path in others)
    return (f"not read: {shown}; pictures were paired by their names. If it lists images and masks, import it itself",)


def _lists_in(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]


def _not_read(folder: Path, read: set[Path]) -> tuple[str, ...]:
    """A note about lists that lie beside those of the splits, such as the several lists of test images of AutoGluon."""
    others = [path.name for path in _lists_in(folder) if path not in read]
    if not others:
        return ()
    named = ", ".join(path.name for path in sorted(read))
    return (f"read: {named}; not read: {', '.join(others)}. To test on one of these, copy it to test.csv",)


def _per_split(folder: Path) -> list[tuple[Split, Path]]:
    """The lists that are called after splits: train.csv, Validation.csv; of several for one split the first."""
    found: dict[Split, Path] = {}
    for path in sorted(
        _lists_in(folder), key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.stem not in SPLITS)
    ):
        split = SPLIT_WORDS.get(path.stem.lower())
        if split and path.is_file() and not _embeds_pictures(path):
            found.setdefault(split, path)
    return [(split, found[split]) for split in SPLITS if split in found]


def _embeds_pictures(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and not _has_only_paths(path)


def _has_only_paths(path: Path) -> bool:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return True  # the reader will say what is wrong with it
    return not any(pa.types.is_nested(field.type) for field in schema)


def _rows(path: Path, options: ReadOptions) -> Iterator[tuple[str, Cells]]:
    """Each row with its name for messages. Raises DataError if the file is no such table."""
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path, options)
        return
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            mark = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, skipinitialspace=True, strict=True, delimiter=mark)
            _check_columns(path, list(reader.fieldnames or ()), options)
            for cells in reader:
                # A row that is too long has its rest, a list, under None; one that is too short has None for a text.
                yield f"{path.name}:{reader.line_num}", {key: cells[key] or "" for key in cells if key is not None}
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        reason = f"not a readable CSV in UTF-8 ({error}); save it as comma-separated UTF-8 text"
        raise DataError(f"{path}: {reason}") from error


def _parquet_rows(path: Path, options: ReadOptions) -> Iterator[tuple[str, Cells]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); write it again") from error
    _check_columns(path, table.column_names, options)
    for number, cells in enumerate(table.to_pylist(), start=1):
        yield f"{path.name}:{number}", {key: "" if cell is None else str(cell) for key, cell in cells.items()}


def _check_columns(path: Path, columns: list[str], options: ReadOptions) -> None:
    wanted = {"image": options.image_column, "label": options.mask_column}
    missing = {role: name for role, name in wanted.items() if name not in columns}
    if not missing:
        return
    found = ", ".join(repr(name) for name in columns) or "none"
    hints = []
    for role, name in missing.items():
        spare = [column for column in columns if column not in (*wanted.values(), "split", "group")]
        folded = {column.strip().lower(): column for column in spare}
        known = [folded[word] for word in [name, *LIKELY_COLUMNS[role]] if word in folded]
        close = known or difflib.get_close_matches(name, spare, n=1)
        if close:
            option = {"image": "--image-column", "label": "--mask-column"}[role]
            hints.append(f"did you mean {close[0]!r} for {name!r}? Say {option} {close[0]!r}.")
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        hints = ["separate the columns with commas" + ", or name the file .tsv" * ("\t" in columns[0])]
    advice = (
        " ".join(hints)
        or "the first line must be: image,label; to pair pictures by their names, say --images and --masks"
    )
    raise DataError(f"{path}: no column {' and no column '.join(map(repr, missing.values()))}; found {found}; {advice}")


def _listed(
    root: Path, cells: Cells, options: ReadOptions, split: Split | None, row: str, elsewhere: Mapping[str, str]
) -> Listed:
    paths = []
    for what, column in (("image", options.image_column), ("label", options.mask_column)):
        text = cells[column].strip().removeprefix(elsewhere.get(column, ""))
        if not text:
            raise DataError(f"{row}: column {column!r} is empty; fill it in or remove the row")
        paths.append(inside(root, text, row, what))
    if split is None and "split" in cells:
        split = split_named(cells["split"], row)
    known = (options.image_column, options.mask_column)
    return Listed(
        image_name=str(paths[0]),
        mask_name=str(paths[1]),
        split=split,
        row=row,
        group=cells.get("group", "").strip() or None,
        cells={name: text for name, text in cells.items() if name not in known} or NO_CELLS,
    )


def split_named(word: str, where: str) -> Split:
    """The split that a cell names. Raises DataError for other words."""
    known = word.strip().lower()
    if known not in SPLIT_WORDS:
        raise DataError(f"{where}: split {known!r} is not one of {', '.join(SPLITS)}; correct the cell")
    return SPLIT_WORDS[known]
