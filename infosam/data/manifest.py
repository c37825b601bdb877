"""Finds image-mask pairs in whatever a user has, gives each a split, and lists everything wrong with them."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG

from infosam.data.card import SPLITS, Split
from infosam.data.doubts import doubts_of, folders_drawn_apart
from infosam.data.formats.parts import in_parts
from infosam.data.kinship import kin_apart
from infosam.data.masks import shown_value
from infosam.data.packed import PackedPairs
from infosam.data.pairs import SHOWN_PROBLEMS, Listed, Pair, ReadOptions
from infosam.data.pixels import Unusable, open_drawing, open_pair
from infosam.data.readers.contract import Listing
from infosam.data.readers.foreign import not_read
from infosam.data.readers.table import choose_reader, understood
from infosam.data.splits import complete_splits, united
from infosam.download import sha256_of_file
from infosam.errors import DataError

OF_ONE = (
    "slices and tiles of a file, and images of a group, count as one: --group says otherwise, such as --group "
    r"'_y(\d+)' for rows of tiles"
)

__all__ = ["Found", "Pair", "Review", "Splitting", "check_pairs", "discover", "find_pairs", "problems_error"]


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How splits are made where the source has none."""

    seed: int = 0
    group: str | None = None  # a column of the source, or a pattern over image paths with one group in brackets
    stratify: bool = False  # every split gets small and large objects alike; opens all masks once more
    anew: bool = False  # forget the splits of the source


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pairs of a source and what was decided on the way."""

    root: Path  # folder all paths lie in
    pairs: Sequence[Pair]
    notes: tuple[str, ...] = ()
    options: ReadOptions = field(default_factory=ReadOptions)


def find_pairs(source: Path, *, seed: int = 0) -> Sequence[Pair]:
    """The pairs of `discover`, without its notes."""
    return discover(source, splitting=Splitting(seed=seed)).pairs


def discover(
    source: Path,
    options: ReadOptions | None = None,
    splitting: Splitting | None = None,
    settled: Callable[[Sequence[Listed]], Mapping[str, Split]] | None = None,
) -> Found:
    """Pairs of a source of any layout in `readers.table`.

    Splits are taken as given; missing ones are drawn from train, whole groups or images at a time. Images are not
    opened, masks only where a class is chosen (images without it are left out) or splits are stratified. `settled` says
    for which keys there is nothing to draw, because the rows go to a data set that knows them. Raises
    DataError with every problem: unknown layout, missing columns, empty cells, paths that leave the folder, images
    without mask, repeated rows, an image or a group in two splits, nothing found."""
    options, splitting = options or ReadOptions(), splitting or Splitting()
    listing, problems = list_pairs(source, options, splitting.group)
    problems += repeated_in(listing.listed)
    if problems:
        raise problems_error(source, problems)
    listed, notes = listing.listed, listing.notes
    if not listed:
        raise DataError(f"{source}: no image-mask pairs in it{not_read(source)}; {understood()}")
    if splitting.anew:
        listed = [replace(pair, split=None) for pair in listed]
    if leaks := leaks_in(listed):
        raise problems_error(source, [problem for _, problem in leaks])
    shares: dict[str, float] = {}
    if options.choice.classes or splitting.stratify:
        listed, shares, more = _with_shares(listed, options)
        notes += more
    splits, drawn = _splits(source, listed, splitting, shares, settled(listed) if settled else {})
    pairs = []
    for place, pair in enumerate(listed):
        pairs.append(_settled(pair, splits[pair.key]))
        listed[place] = pairs[-1]  # one of the two is enough: there may be millions
    pairs.sort(key=lambda pair: SPLITS.index(pair.split))  # stable: within a split the order of the source stays
    if kin := kin_apart(pairs):
        drawn += (f"{kin}: scores may be of what was trained on; --group '{kin.pattern}' keeps them in one split",)
    elif drawn:
        drawn += folders_drawn_apart(listing.root, pairs)
    return Found(root=listing.root, pairs=PackedPairs(pairs), notes=(*notes, *drawn), options=options)


def _splits(
    source: Path,
    listed: Sequence[Listed],
    splitting: Splitting,
    shares: dict[str, float],
    known: Mapping[str, Split],
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The split of every key, and notes on what was drawn."""
    to_draw = [pair for pair in listed if pair.key not in known]
    names = _united(to_draw)
    notes: tuple[str, ...] = ()
    if names:
        notes = (f"{len(names)} images (or groups) hold a picture of another one: equal pictures stay in one split",)
    by_key: dict[str, Split | None] = {names.get(pair.key, pair.key): pair.split for pair in to_draw}
    for key, name in names.items():
        shares[name] = max(shares.get(name, 0.0), shares.get(key, 0.0))
    try:
        splits, drawn = complete_splits(
            source, by_key, seed=splitting.seed, shares=shares if splitting.stratify else None
        )
    except DataError as error:
        if len({pair.image for pair in listed}) > len(by_key):
            raise DataError(f"{error}; {OF_ONE}") from error
        raise
    splits.update({key: splits[name] for key, name in names.items()})
    splits.update(known)
    return splits, (*notes, *drawn)


def _united(listed: Sequence[Listed]) -> dict[str, str]:
    """One other key for each key of pairs without a split that hold a picture file equal to another's; else one would
    be trained on and the other scored. Reads only files that have the size of another one."""
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}  # key of each picture
    links: list[tuple[str, str]] = []
    try:
        for pair in listed:
            if pair.split is None and pair.image_content is None:
                state = os.stat(pair.image_name)
                if S_ISREG(state.st_mode):
                    sizes[pair.image_name] = state.st_size
        amount = Counter(sizes.values())
        for pair in listed:
            if amount[sizes.pop(pair.image_name, -1)] > 1:
                key = pair.key
                other = first.setdefault(sha256_of_file(pair.image), key)
                if other != key:
                    links.append((key, other))
    except (OSError, ValueError):
        return {}  # a file cannot be read: opening it says what is wrong
    links += ((key, key) for key in first.values())
    return {key: name for (key, _), name in zip(links, united(links), strict=True) if key != name}


def _settled(pair: Listed, split: Split) -> Pair:
    return Pair(
        image_name=pair.image_name,
        mask_name=pair.mask_name,
        split=split,
        row=pair.row,
        group=pair.group,
        image_content=pair.image_content,
        mask_content=pair.mask_content,
    )


def list_pairs(source: Path, options: ReadOptions, group: str | None = None) -> tuple[Listing, list[str]]:
    """What a source lists, volumes and scenes in parts, with groups but without drawn splits, and what is wrong with
    single rows."""
    problems: list[str] = []
    listing = in_parts(choose_reader(source, options).read(source, options, problems), options, problems)
    listing = replace(listing, listed=_nameable(listing.listed, problems))
    problems += [
        f"{pair.row}: image and mask are the same file, {pair.image}; name the photograph and its mask"
        for pair in listing.listed
        if pair.image == pair.mask and pair.image_content is None
    ]
    if group is not None:
        listing = replace(listing, listed=grouped(listing, group, problems))
    listing = replace(listing, notes=(*listing.notes, *doubts_of(listing, group)))
    return listing, [problem.encode(errors="backslashreplace").decode() for problem in problems]


def _nameable(listed: Sequence[Listed], problems: list[str]) -> list[Listed]:
    """Those whose names are text: a name in another encoding can neither be stored nor shown."""
    good = []
    for pair in listed:
        odd = [name for name in (pair.image_name, pair.mask_name) if not _is_text(name)]
        if odd:
            problems.append(f"{pair.row}: {odd[0]!a}: its name is not in UTF-8; rename it (convmv does many)")
        else:
            good.append(pair)
    return good


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def grouped(listing: Listing, group: str, problems: list[str]) -> list[Listed]:
    """The pairs with groups from a column of the source, else from a pattern over the paths of images."""
    if any(group in pair.cells for pair in listing.listed):
        return [replace(pair, group=pair.cells.get(group, "").strip() or None) for pair in listing.listed]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise DataError(f"--group {group!r}: no column of that name, and no pattern ({error})") from error
    if pattern.groups != 1:
        columns = sorted({name for pair in listing.listed[:1] for name in pair.cells if name})
        near = difflib.get_close_matches(group, columns, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else f" (there are {', '.join(columns)})" if columns else ""
        raise DataError(
            f"--group {group!r}: no column of that name{hint}; a pattern over image paths needs one part in brackets, "
            r"such as 'patient(\d+)'"
        )
    found = []
    for pair in listing.listed:
        match = pattern.search(pair.image.relative_to(listing.root).as_posix())
        if match and match[1]:
            found.append(replace(pair, group=match[1]))
        else:
            problems.append(f"{pair.row}: --group {group!r} does not match {pair.image.name}; widen the pattern")
    return found


def _with_shares(
    listed: Sequence[Listed], options: ReadOptions
) -> tuple[list[Listed], dict[str, float], tuple[str, ...]]:
    """Pairs whose masks hold the chosen class, the largest share of foreground under each key, and a note.

    Files that cannot be opened stay: the import names them with everything else that is wrong."""
    kept: list[Listed] = []
    shares: dict[str, float] = {}
    seen: set[float] = set()
    for pair in listed:
        try:
            drawing = open_drawing(pair, options.choice)
            share = max(float(mask.mean()) for mask in drawing.masks)
            seen.update(drawing.values[:SHOWN_PROBLEMS] if len(seen) < SHOWN_PROBLEMS else ())
        except Unusable:
            share = -1.0
        if share != 0 or not options.choice.classes:
            kept.append(pair)
            shares[pair.key] = max(share, shares.get(pair.key, 0.0))
    blank = len(listed) - len(kept)
    if not kept:
        raise DataError(
            f"no mask has a pixel of --class {' '.join(options.choice.classes)}; their values are "
            f"{', '.join(map(shown_value, sorted(seen)[:SHOWN_PROBLEMS])) or 'not known'}"
        )
    return kept, shares, (f"{blank} images without the chosen class left out",) if blank else ()


def check_pairs(
    pairs: Sequence[Pair], *, allow_empty: bool = False, progress: Callable[[int, int], None] | None = None
) -> None:
    """Opens every file. Raises one DataError that lists each bad pair: missing, unreadable, of another size, not
    binary, or without foreground (kept with `allow_empty`, but never a set in which all masks are empty)."""
    review = Review(allow_empty=allow_empty)
    for done, pair in enumerate(pairs, start=1):
        try:
            review.add(pair, empty=not any(content.mask.any() for content in open_pair(pair)))
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

    def refuse(self, pair: Listed, reason: str) -> None:
        """A pair that cannot be used at all."""
        self._seen += 1
        self.problems.append(f"{pair.row}: {reason}")

    def add(self, pair: Listed, *, empty: bool) -> None:
        """A readable pair; `empty` if it has no foreground at all."""
        self._seen += 1
        if not empty:
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
                "check that the label column names the masks and that objects are neither stored as 0 nor as no data"
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


def repeated_in(listed: Sequence[Listed]) -> list[str]:
    """Pairs that are listed more than once, each as a problem."""
    first: dict[tuple[str, str, Split | None], str] = {}
    problems = []
    for pair in listed:
        earlier = first.setdefault((pair.image_name, pair.mask_name, pair.split), pair.row)
        if earlier != pair.row:
            problems.append(f"{pair.row}: the same image and mask as {earlier} ({pair.image.name}); remove one row")
    return problems


def leaks_in(listed: Sequence[Listed]) -> list[tuple[int, str]]:
    """An image or a group in two splits, or an image in two groups: scores would be of images trained on. Each with the
    position of the pair that does not fit."""
    by_image: dict[str, Listed] = {}
    by_group: dict[str, Listed] = {}
    problems: dict[tuple[str, str], tuple[int, str]] = {}
    for position, pair in enumerate(listed):
        other = by_image.setdefault(pair.image_name, pair)
        if other.group != pair.group:
            text = (
                f"image {pair.image_name} has group {other.group!r} in {other.row} and {pair.group!r} in {pair.row}; "
                "give all its rows the same group"
            )
            problems.setdefault(("groups of", pair.image_name), (position, text))
        things = [("image", pair.image_name, other)]
        if pair.group:
            things.append(("group", pair.group, by_group.setdefault(pair.group, pair)))
        for kind, name, earlier in things:
            if earlier.split != pair.split:
                text = (
                    f"{kind} {name} is in two splits: {earlier.split or 'none'} ({earlier.row}) and "
                    f"{pair.split or 'none'} ({pair.row}); keep it in one, or its score means nothing"
                )
                problems.setdefault((kind, name), (position, text))
    return list(problems.values())
