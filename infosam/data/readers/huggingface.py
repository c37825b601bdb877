"""Hugging Face data sets on disk, and data sets of infosam: pictures inside Arrow or Parquet files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infosam.data.card import CARD_NAME, DatasetCard, Split, read_card
from infosam.data.masks import Unusable
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.pixels import read_bytes
from infosam.data.readers.contract import Listing, inside
from infosam.data.readers.lists import split_named
from infosam.data.shards import row_tables
from infosam.data.splits import SPLIT_WORDS
from infosam.download import sha256_of_file
from infosam.errors import DataError

IMAGE_COLUMNS = ("image", "img", "picture", "pixel_values")
MASK_COLUMNS = ("label", "mask", "annotation", "segmentation", "segmentation_mask", "labels", "masks")
KEPT_ROW_GROUPS = 4
READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)  # the last one for names of damaged columns


class HuggingFace:
    """Two columns of pictures, as `Dataset.save_to_disk` and `push_to_hub` write them."""

    layout = (
        "a Hugging Face data set on disk, or a data set of infosam: a folder of Arrow or Parquet files with pictures"
    )

    def fits(self, source: Path) -> bool:
        return bool(_files(source))

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        root = source if source.is_dir() else source.parent
        listed: list[Listed] = []
        problems += _damages(source)
        moves = _moves(source)
        notes: dict[str, None] = {}
        for split, path in _files(source):
            try:
                table = _Table(path)
                roles = _roles(table, options)
                listed += _listed(root, table, split, roles, problems, moves)
            except READ_ERRORS as error:
                raise DataError(f"{path}: not a readable Arrow or Parquet file ({error}); write it again") from error
            if others := [name for name in _picture_columns(table.schema) if name not in roles]:
                notes[
                    f"images are in column {roles[0]!r}, masks in {roles[1]!r}; not read: {', '.join(others)}. Choose "
                    "with --image-column and --mask-column"
                ] = None
        return Listing(root=root, listed=listed, notes=tuple(notes))


def _files(source: Path) -> list[tuple[Split | None, Path]]:
    """Files with pictures inside, each with the split that its folder or name speaks of."""
    if source.is_file():
        return [(None, source)] if source.suffix == ".parquet" and _has_pictures(source) else []
    card = _card(source)
    if card is not None:
        return [(None, source / shard.name) for shard in card.shards]
    try:
        if (source / "dataset_dict.json").is_file():
            folders = [folder for folder in sorted(source.iterdir()) if (folder / "state.json").is_file()]
            return [(_split_of(folder.name), path) for folder in folders for path in _arrow_files(folder)]
        if (source / "state.json").is_file():
            return [(None, path) for path in _arrow_files(source)]
        found = [path for place in (source, source / "data") for path in sorted(place.glob("*.parquet"))]
    except OSError:
        return []
    return [(_split_of(path.stem), path) for path in found if path.is_file() and _has_pictures(path)]


def _card(source: Path) -> DatasetCard | None:
    """That of a data set of infosam, which says which files count."""
    try:
        return read_card(source)
    except DataError:
        return None


def _damages(source: Path) -> Iterator[str]:
    """Files of a data set of infosam that are not those that were written: a picture with a wrong bit often opens."""
    card = _card(source)
    for shard in card.shards if card else ():
        path = source / shard.name
        with suppress(OSError):  # of a file that is missing, which is told when it is read
            if shard.sha256 and sha256_of_file(path) != shard.sha256:
                yield f"{path}: is damaged: its SHA-256 is not that of {CARD_NAME}; copy it again, or import anew"


def _moves(source: Path) -> Mapping[str, Mapping[str, str]]:
    """Split and group of each id of a data set of infosam that was split anew; else nothing."""
    card = _card(source)
    if card is None or card.moves is None:
        return {}
    rows = [row for _, _, table in row_tables(card, ["split", "group"]) for row in table.to_pylist()]
    return {row["id"]: {"split": row["split"], "group": row["group"] or ""} for row in rows}


def _arrow_files(folder: Path) -> list[Path]:
    """In the order that the data set's own list gives them."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        names = [Path(entry["filename"]).name for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return sorted(folder.glob("*.arrow"))
    return [folder / name for name in names]


def _split_of(name: str) -> Split | None:
    return SPLIT_WORDS.get(re.split(r"[-_.]", name.lower())[0])


def _has_pictures(path: Path) -> bool:
    try:
        return len(_picture_columns(pq.read_schema(path))) > 1
    except READ_ERRORS:
        return False


def _picture_columns(schema: pa.Schema) -> list[str]:
    """Columns of the type that `datasets` keeps pictures in."""
    names = []
    for column in schema:
        kind = column.type
        if pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}:
            names.append(column.name)
    return names


@dataclass
class _Table:
    """One file, read a row group at a time; the last few stay in memory."""

    path: Path
    schema: pa.Schema = field(init=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        self._file: pq.ParquetFile | None = None
        if self.path.suffix == ".parquet":
            self._file = pq.ParquetFile(self.path, memory_map=True)
            self.schema = self._file.schema_arrow
            self._group = lru_cache(KEPT_ROW_GROUPS)(self._read_group)
        else:  # an Arrow stream is mapped into memory as a whole; only what is touched is loaded
            self._batches = pa.ipc.open_stream(pa.memory_map(str(self.path))).read_all().to_batches()
            self.schema = self._batches[0].schema if self._batches else pa.schema([])
            for batch in self._batches:
                batch.validate(full=True)  # damaged offsets would be followed out of the file

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the file is opened anew."""
        return _Table, (self.path,)

    def rows(self, columns: list[str]) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """(group, offset, cells) of every row; of pictures only the path."""
        groups = self._file.num_row_groups if self._file else len(self._batches)
        for group in range(groups):
            table = self._file.read_row_group(group, columns=columns) if self._file else self._batches[group]
            small = {name.partition(".")[0]: _flat(table, name) for name in columns}
            for offset in range(table.num_rows):
                yield group, offset, {name: values[offset] for name, values in small.items()}

    def picture(self, column: str, group: int, offset: int) -> Mapping[str, Any]:
        """A cell with a picture: {"bytes": ..., "path": ...}."""
        with self._lock:
            try:
                table = self._group(group) if self._file else self._batches[group]
                cell = table[column][offset].as_py()
            except READ_ERRORS as error:
                text = f"{self.path}: row group {group} cannot be read ({error}); write the file again"
                raise Unusable(text, "damaged") from error
        return cell or {}

    def _read_group(self, group: int) -> pa.Table:
        assert self._file is not None
        return self._file.read_row_group(group, columns=_picture_columns(self.schema), use_threads=False)


def _flat(table: Any, name: str) -> list[Any]:
    column, _, part = name.partition(".")
    values = table[column]
    if part:
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        return [value for chunk in chunks for value in chunk.field(part).to_pylist()]
    return values.to_pylist()


def _listed(
    root: Path,
    table: _Table,
    split: Split | None,
    roles: tuple[str, str],
    problems: list[str],
    moves: Mapping[str, Mapping[str, str]],
) -> Iterator[Listed]:
    image, mask = roles
    small = [column.name for column in table.schema if _is_word(column.type)]
    for number, (group, offset, cells) in enumerate(table.rows([f"{image}.path", f"{mask}.path", *small]), start=1):
        row = f"{table.path.relative_to(root)}:{number}"
        words = {name: str(cells[name]) for name in small if cells[name] is not None}
        words |= moves.get(words.get("id", ""), {})
        try:
            names = [_name(root, table, cells[column], number, row, column) for column in (image, mask)]
            given = split_named(words["split"], row) if split is None and "split" in words else split
        except DataError as problem:
            problems.append(str(problem))
            continue
        yield Listed(
            image_name=str(names[0]),
            mask_name=str(names[1]),
            split=given,
            row=row,
            group=words.get("group") or None,
            image_content=partial(_content, table, image, group, offset, root, row),
            mask_content=partial(_content, table, mask, group, offset, root, row),
            cells=words,
        )


def _is_word(kind: pa.DataType) -> bool:
    """Whether a column holds texts or whole numbers, as splits and groups are, in whatever way Arrow keeps them."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(one(kind) for one in texts)


def _name(root: Path, table: _Table, text: str | None, number: int, row: str, column: str) -> Path:
    """A name of its own for each picture: `datasets` keeps only the last part of a path, which may repeat, while in a
    data set of infosam, and for files beside it, equal paths are the same picture."""
    if text and ("fg_fraction" in table.schema.names or (not text.startswith("/") and (root / text).is_file())):
        return inside(root, text, row, column)
    return table.path.with_suffix("") / f"{number:06}_{Path(text or column).name}"


def _content(table: _Table, column: str, group: int, offset: int, root: Path, row: str) -> bytes:
    cell = table.picture(column, group, offset)
    if cell.get("bytes") is not None:
        return bytes(cell["bytes"])
    if not cell.get("path"):
        raise Unusable(f"{row}: column {column!r} holds no picture; remove the row", "missing")
    try:
        return read_bytes(inside(root, cell["path"], row, column), column)
    except DataError as problem:
        raise Unusable(str(problem), "missing") from None


def _roles(table: _Table, options: ReadOptions) -> tuple[str, str]:
    """Names of the columns of images and masks. Raises DataError if they cannot be told."""
    pictures = _picture_columns(table.schema)

    def choose(what: str, option: str, wanted: str, known: tuple[str, ...], taken: str | None) -> str:
        if wanted in pictures:
            return wanted
        likely = [name for name in known if name in pictures and name != taken]
        if len(likely) == 1:
            return likely[0]
        shown = ", ".join(likely or pictures) or "none"
        several = ", ".join(column.name for column in table.schema if pa.types.is_list(column.type))
        hint = f" ({several}: lists, of which each picture needs a row of its own)" if several else ""
        raise DataError(
            f"{table.path}: which column holds the {what}? Columns with pictures: {shown}{hint}; name one with {option}"
        )

    image = choose("images", "--image-column", options.image_column, IMAGE_COLUMNS, None)
    return image, choose("masks", "--mask-column", options.mask_column, MASK_COLUMNS, image)
