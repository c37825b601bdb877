"""Images and masks that lie where the user says: two patterns of paths, for whatever no other reader can tell."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from infosam.data.card import Split
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.readers.contract import Listing
from infosam.data.readers.pictures import picture_files
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import ConfigError, DataError

TOKENS = re.compile(r"(NAME|SPLIT|\*)")
EXAMPLE = "such as --images 'SPLIT/images/NAME.jpg' --masks 'SPLIT/masks/NAME_*.png'"
Key = tuple[Split | None, str]
Files = dict[Key, list[Path]]


class Patterns:
    """Files whose paths below the source fit a pattern: NAME is what image and mask have in common, SPLIT a word for
    train, val or test, * any text within one part of the path. Capitals and small letters outside NAME are the same."""

    layout = "any folder, with --images and --masks as patterns of paths"

    def fits(self, source: Path) -> bool:
        return source.is_dir()

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        """Images without mask and masks without image are left out, with a note. Raises ConfigError for patterns that
        are none, DataError if they fit nothing."""
        patterns = [_pattern("--images", options.images), _pattern("--masks", options.masks)]
        if not source.is_dir():
            raise DataError(f"{source}: no folder; --images and --masks are paths below one")
        splits = all(pattern.has_split for pattern in patterns)
        images, masks = (_files(source, pattern, splits, problems) for pattern in patterns)
        listed = []
        for key, paths in images.items():
            if len(paths) > 1:
                shown = " and ".join(path.relative_to(source).as_posix() for path in paths[:2])
                problems.append(f"--images: {shown} are both NAME {key[1]!r}; make the pattern narrower")
            for number, mask in enumerate(masks.get(key, [])):
                row = paths[0].relative_to(source).as_posix() + f" (mask {number + 1})" * (number > 0)
                split = patterns[0].split_of(source, paths[0]) or patterns[1].split_of(source, mask)
                listed.append(Listed(image_name=str(paths[0]), mask_name=str(mask), split=split, row=row))
        if not listed and not problems:
            found = "; ".join(
                _seen(source, pattern, files) for pattern, files in zip(patterns, (images, masks), strict=True)
            )
            raise DataError(f"{source}: no image has a mask by these patterns: {found}; {EXAMPLE}")
        notes = [
            f"{len(alone):,} {kind} {patterns[0 if kind == 'images' else 1].text!r} left out, for they have no "
            f"{other}: such as {alone[0].relative_to(source).as_posix()}"
            for kind, other, mine, others in (
                ("images", "mask", images, masks),
                ("masks", "image", masks, images),
            )
            if (alone := [path for key, paths in mine.items() if key not in others for path in paths])
        ]
        return Listing(root=source, listed=listed, notes=tuple(notes))


@dataclass(frozen=True)
class _Pattern:
    option: str
    text: str
    regex: re.Pattern[str]
    base: str  # the folders before the first token

    @property
    def has_split(self) -> bool:
        return "split" in self.regex.groupindex

    def split_of(self, source: Path, path: Path) -> Split | None:
        match = self.regex.fullmatch(path.relative_to(source).as_posix())
        return SPLIT_WORDS[match["split"].lower()] if match and self.has_split else None


def _pattern(option: str, text: str | None) -> _Pattern:
    """A pattern as the user gave it. Raises ConfigError unless it is one."""
    if text is None:
        raise ConfigError(f"{option} is missing: --images and --masks go together, {EXAMPLE}")
    parts = text.removeprefix("./").split("/")
    if not text or text.startswith("/") or ".." in parts or "" in parts:
        raise ConfigError(f"{option} {text!r}: expected a path below SRC without '..', {EXAMPLE}")
    if "NAME" not in text:
        raise ConfigError(f"{option} {text!r}: says nowhere which part image and mask have in common: NAME, {EXAMPLE}")
    words = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
    regex, seen = "", set()
    for token in TOKENS.split("/".join(parts)):
        if token in ("NAME", "SPLIT") and token in seen:
            regex += f"(?P={token.lower()})"
        else:
            first = {"NAME": "(?P<name>.+)", "SPLIT": f"(?P<split>{words})", "*": "[^/]*"}
            regex += first.get(token, re.escape(token))
        seen.add(token)
    base = parts[:-1]
    plain = next((number for number, part in enumerate(base) if TOKENS.search(part)), len(base))
    return _Pattern(option, text, re.compile(regex, re.IGNORECASE | re.DOTALL), "/".join(base[:plain]))


def _files(source: Path, pattern: _Pattern, splits: bool, problems: list[str]) -> Files:
    """The files that fit, by NAME, and by split if both patterns have one."""
    found: Files = defaultdict(list)
    base = source / pattern.base
    if not base.is_dir():
        here = (
            ", ".join(f"{path.name}/" for path in sorted(base.parent.iterdir()) if path.is_dir())
            if base.parent.is_dir()
            else ""
        )
        raise DataError(f"{pattern.option} {pattern.text!r}: {base} is no folder; there are {here or 'none'}")
    for path in picture_files(base, problems):
        match = pattern.regex.fullmatch(path.relative_to(source).as_posix())
        if match:
            found[
                (SPLIT_WORDS[match["split"].lower()] if splits else None, unicodedata.normalize("NFC", match["name"]))
            ].append(path)
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def _seen(source: Path, pattern: _Pattern, files: Files) -> str:
    count = sum(map(len, files.values()))
    if not count:
        others = [path.relative_to(source).as_posix() for path in picture_files(source / pattern.base, [])][:3]
        return f"{pattern.option} {pattern.text!r} fits no file ({', '.join(others) or 'there is none'})"
    (_, name), paths = next(iter(files.items()))
    return f"{pattern.option} fits {count:,}, such as {paths[0].relative_to(source).as_posix()} with NAME {name!r}"
