"""Finds image-mask pairs in a user's folder or CSV, gives each a split, and lists everything wrong with them."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infosam.data.pixels import Unusable, read_pair
from infosam.data.schema import SPLITS, Split
from infosam.data.splits import SPLIT_WORDS, complete_splits
from infosam.errors import DataError

PICTURE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
SHOWN_PROBLEMS = 20
LIKELY_COLUMNS = {
    "image": ["img", "images", "image_path", "path", "file"],
    "label": ["mask", "masks", "labels", "annotation"],
}
ACCEPTED = (
    "expected train.csv, val.csv and test.csv (columns image,label), or folders images/ and masks/ with equal file "
    "names; or give the path of one CSV with columns image,label[,split]"
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image and one mask of it. An image with several masks is several pairs."""

    image: Path
    mask: Path
    split: Split
    row: str  # where it is listed, for messages: "train.csv:12" or the file's name
    group: str | None = None  # patient, video or scene; never in two splits


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pairs of a source and what was decided on the way."""

    root: Path  # folder all paths lie in
    pairs: list[Pair]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """A pair before it has a split for certain."""

    image: Path
    mask: Path
    split: Split | None
    row: str
    group: str | None = None

    @property
    def key(self) -> str:
        """What must stay together in one split."""
        return f"group {self.group}" if self.group else f"image {self.image.as_posix()}"


def find_pairs(source: Path, *, seed: int = 0) -> list[Pair]:
    """The pairs of `discover`, without its notes."""
    return discover(source, seed=seed).pairs


def discover(source: Path, *, seed: int = 0) -> Found:
    """Pairs of a folder with train.csv, val.csv and test.csv, of one CSV, or of a folder with images/ and masks/.

    Splits are taken as given; missing ones are drawn from train, whole groups or images at a time, with `seed`.
    Files are not opened. Raises DataError with every problem: unknown layout, missing columns, empty cells, paths
    that leave the folder, images without mask, repeated rows, an image or a group in two splits, nothing found."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; {ACCEPTED}")
    problems: list[str] = []
    if source.is_dir():
        root, listed = source, list(_from_folder(source, problems))
    else:
        root, listed = source.parent, list(_from_csv(source, None, problems))
    problems += _repeated(listed)
    if problems:
        raise problems_error(source, problems)
    if not listed:
        raise DataError(f"{source}: no image-mask pairs in it; {ACCEPTED}")
    leaks = _leaks(listed)
    if leaks:
        raise problems_error(source, leaks)
    by_key: dict[str, Split | None] = {pair.key: pair.split for pair in listed}
    splits, notes = complete_splits(source, by_key, seed=seed)
    pairs = [Pair(image=p.image, mask=p.mask, split=splits[p.key], row=p.row, group=p.group) for p in listed]
    pairs.sort(key=lambda pair: SPLITS.index(pair.split))  # stable: within a split the order of the source stays
    return Found(root=root, pairs=pairs, notes=notes)


def check_pairs(
    pairs: Sequence[Pair], *, allow_empty: bool = False, progress: Callable[[int, int], None] | None = None
) -> None:
    """Opens every file. Raises one DataError that lists each bad pair: missing, unreadable, of another size, not
    binary, or without foreground (kept with `allow_empty`, but never a set in which all masks are empty)."""
    review = Review(allow_empty=allow_empty)
    for done, pair in enumerate(pairs, start=1):
        try:
            review.add(pair, read_pair(pair.image, pair.mask).fg_fraction)
        except Unusable as problem:
            review.refuse(pair, str(problem))
        if progress:
            progress(done, len(pairs))
    review.finish("the data set")


class Review:
    """Collects what is wrong with the pairs of one set, to refuse it once with everything at hand."""

    def __init__(self, *, allow_empty: bool) -> None:
        self.problems: list[str] = []
        self._allow_empty = allow_empty
        self._seen = self._empty = 0

    def refuse(self, pair: Pair, reason: str) -> None:
        """A pair that cannot be used at all."""
        self._seen += 1
        self.problems.append(f"{pair.row}: {reason}")

    def add(self, pair: Pair, fg_fraction: float) -> None:
        """A readable pair with this share of foreground."""
        self._seen += 1
        if fg_fraction > 0:
            return
        self._empty += 1
        if not self._allow_empty:
            self.problems.append(
                f"{pair.row}: {pair.mask}: the mask is empty (no foreground pixel); draw it, remove the row, or keep "
                "such images with --allow-empty"
            )

    def finish(self, source: Path | str) -> None:
        """Raises DataError if anything was wrong."""
        if self._seen and self._empty == self._seen:
            raise DataError(
                f"{source}: all {self._seen} masks are empty (no foreground pixel), so there is nothing to learn; "
                "check that the label column names the masks and that objects are not stored as 0"
            )
        if self.problems:
            raise problems_error(source, self.problems)


def problems_error(source: Path | str, problems: Sequence[str]) -> DataError:
    """One error with the first problems, one a line, and the number of the others."""
    if len(problems) == 1:
        return DataError(f"{source}: {problems[0]}")
    more = len(problems) - SHOWN_PROBLEMS
    lines = [*problems[:SHOWN_PROBLEMS], *([f"... and {more} more"] if more > 0 else [])]
    return DataError(f"{source}: {len(problems)} problems\n  " + "\n  ".join(lines))


def _from_folder(source: Path, problems: list[str]) -> Iterator[_Listed]:
    lists = [(split, source / f"{split}.csv") for split in SPLITS if (source / f"{split}.csv").is_file()]
    if lists:
        for split, path in lists:
            yield from _from_csv(path, split, problems)
    elif (source / "images").is_dir() and (source / "masks").is_dir():
        yield from _from_image_folders(source, problems)
    else:
        inside = sorted(path.name + "/" * path.is_dir() for path in source.iterdir())
        csvs = [name for name in inside if name.lower().endswith(".csv")]
        hint = f"; did you mean {source / csvs[0]}?" if csvs else ""
        shown = ", ".join(inside[:10]) + (", ..." if len(inside) > 10 else "") or "nothing"
        raise DataError(f"{source}: no data set found in it (it holds {shown}){hint}; {ACCEPTED}")


def _from_csv(path: Path, split: Split | None, problems: list[str]) -> Iterator[_Listed]:
    """Rows of a CSV; `split` is that of the whole file, else it comes from a column `split`, if there is one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            _check_columns(path, list(reader.fieldnames or ()))
            for cells in reader:
                row = f"{path.name}:{reader.line_num}"
                try:
                    yield _read_row(path.parent, cells, split, row)
                except DataError as problem:
                    problems.append(str(problem))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        reason = f"not a readable CSV in UTF-8 ({error}); save it as comma-separated UTF-8 text"
        raise DataError(f"{path}: {reason}") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [name for name in ("image", "label") if name not in columns]
    if not missing:
        return
    found = ", ".join(repr(name) for name in columns) or "none"
    hints = []
    for name in missing:
        spare = [column for column in columns if column not in ("image", "label", "split", "group")]
        folded = {column.strip().lower(): column for column in spare}
        known = [folded[word] for word in [name, *LIKELY_COLUMNS[name]] if word in folded]
        close = known or difflib.get_close_matches(name, spare, n=1)
        if close:
            hints.append(f"did you mean {close[0]!r} for {name!r}?")
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        hints = ["separate the columns with commas"]
    advice = " ".join(hints) or "the first line must be: image,label"
    raise DataError(f"{path}: no column {' and no column '.join(map(repr, missing))}; found {found}; {advice}")


def _read_row(root: Path, cells: dict[str, str | None], split: Split | None, row: str) -> _Listed:
    paths = {}
    for column in ("image", "label"):
        text = (cells[column] or "").strip()
        if not text:
            raise DataError(f"{row}: column {column!r} is empty; fill it in or remove the row")
        inside = os.path.relpath(root / text, root)
        # Compared as text: links that lead out of the folder (caches of large files) are the user's own wish.
        if inside.split(os.sep)[0] == os.pardir:
            raise DataError(f"{row}: {column} {text!r} lies outside {root}; use paths relative to the CSV, no '..'")
        paths[column] = root / inside
    word = (cells.get("split") or "").strip().lower()
    if split is None and "split" in cells:
        if word not in SPLIT_WORDS:
            raise DataError(f"{row}: split {word!r} is not one of {', '.join(SPLITS)}; correct the cell")
        split = SPLIT_WORDS[word]
    group = (cells.get("group") or "").strip() or None
    return _Listed(image=paths["image"], mask=paths["label"], split=split, row=row, group=group)


def _from_image_folders(source: Path, problems: list[str]) -> Iterator[_Listed]:
    images, masks = source / "images", source / "masks"
    given = {path.name: SPLIT_WORDS[path.name.lower()] for path in sorted(images.iterdir()) if _is_split_folder(path)}
    if not given:
        yield from _matched_stems(images, masks, None, problems)
        return
    loose = _pictures(images)
    if loose:
        problems.append(
            f"{images}: {sum(map(len, loose.values()))} pictures, such as {next(iter(loose.values()))[0].name}, lie "
            f"beside the folders {', '.join(given)}; move them into one of these"
        )
    for name, split in given.items():
        if (masks / name).is_dir():
            yield from _matched_stems(images / name, masks / name, split, problems)
        else:
            problems.append(f"{masks / name}: no such folder, but {images / name} exists; add the masks of this split")


def _is_split_folder(path: Path) -> bool:
    return path.is_dir() and path.name.lower() in SPLIT_WORDS


def _matched_stems(images: Path, masks: Path, split: Split | None, problems: list[str]) -> Iterator[_Listed]:
    pictures, drawn = _pictures(images), _pictures(masks)
    for folder, found, kind in ((images, pictures, "images"), (masks, drawn, "masks")):
        problems += [
            f"{folder}: {' and '.join(path.name for path in paths)} differ only in their ending, which of the {kind} "
            "is meant? Remove one"
            for paths in found.values()
            if len(paths) > 1
        ]
    spare = sorted(drawn.keys() - pictures.keys())
    for stem, paths in pictures.items():
        if stem in drawn:
            yield _Listed(image=paths[0], mask=drawn[stem][0], split=split, row=paths[0].name)
            continue
        near = [name for name in spare if name.startswith(stem)] or difflib.get_close_matches(stem, spare, n=1)
        hint = f"; is it {drawn[near[0]][0].name}? Give both the same name" if near else "; add it or remove the image"
        problems.append(f"{paths[0]}: no mask {stem}.* in {masks}{hint}")
    problems += [f"{drawn[stem][0]}: mask without an image {stem}.* in {images}; remove it" for stem in spare]


def _pictures(folder: Path) -> dict[str, list[Path]]:
    """Pictures directly in a folder by their name without ending, sorted."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and not path.is_dir():
            found.setdefault(path.stem, []).append(path)
    return found


def _repeated(listed: Sequence[_Listed]) -> list[str]:
    first: dict[tuple[Path, Path, Split | None], str] = {}
    problems = []
    for pair in listed:
        earlier = first.setdefault((pair.image, pair.mask, pair.split), pair.row)
        if earlier != pair.row:
            problems.append(f"{pair.row}: the same image and mask as {earlier} ({pair.image.name}); remove one row")
    return problems


def _leaks(listed: Sequence[_Listed]) -> list[str]:
    """An image or a group in two splits, or an image in two groups: scores would be of images trained on."""
    first: dict[tuple[str, Path | str], _Listed] = {}
    by_image: dict[Path, _Listed] = {}
    problems: dict[tuple[str, Path | str], str] = {}
    for pair in listed:
        other = by_image.setdefault(pair.image, pair)
        if other.group != pair.group:
            problems.setdefault(
                ("groups of", pair.image),
                f"image {pair.image} has group {other.group!r} in {other.row} and {pair.group!r} in {pair.row}; "
                "give all its rows the same group",
            )
        things: list[tuple[str, Path | str]] = [("image", pair.image)]
        if pair.group:
            things.append(("group", pair.group))
        for kind, name in things:
            earlier = first.setdefault((kind, name), pair)
            if earlier.split != pair.split:
                problems.setdefault(
                    (kind, name),
                    f"{kind} {name} is in two splits: {earlier.split} ({earlier.row}) and {pair.split} ({pair.row}); "
                    "keep it in one, or its score means nothing",
                )
    return list(problems.values())
