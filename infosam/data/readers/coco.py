"""COCO annotations: one JSON with images, annotations and categories, or a folder with one per split."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infosam.data.card import Split
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.readers.contract import Listing, inside
from infosam.data.readers.shapes import BadShape, check_segmentation, check_size, draw_all
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import DataError

HEAD_BYTES = 1 << 20
SHOWN = 6
OBJECTS = "instances_"
WANTED = ("images", "annotations", "categories")
NO_FILE = "lies neither beside the JSON nor in images/ or a folder of the split; put it there, or correct file_name"


class Coco:
    """Polygons and run lengths, of all classes or some, as one mask per image or one per annotation."""

    layout = "a COCO JSON (images, annotations, categories), or a folder with one per split, beside the images"

    def fits(self, source: Path) -> bool:
        return bool(_files(source))

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        root = source if source.is_dir() else source.parent
        if root.name == "annotations" and source.is_file():
            root = root.parent  # as COCO itself comes: the images lie beside that folder
        listed: list[Listed] = []
        notes: list[str] = []
        paths, others = _chosen(_files(source))
        if others:
            notes.append(f"not read: {', '.join(path.name for path in others)}; objects are in {paths[0].name}")
        files: dict[Path, dict[str, None]] = defaultdict(dict)
        for path in paths:
            found = list(_File(root, path, options, problems, notes).pairs())
            listed += found
            for pair in found:
                files[pair.image][path.name] = None
        if shared := [names for names in files.values() if len(names) > 1]:
            notes.append(
                f"{len(shared):,} images are in {' and '.join(shared[0])}, and have a mask from each; if one is a copy "
                "of the other, remove it"
            )
        return Listing(root=root, listed=listed, notes=tuple(notes))


def _chosen(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """The files to read, and those that say other things of the same images: captions_val.json beside
    instances_val.json."""
    said = {path.parent / path.name.removeprefix(OBJECTS) for path in paths if path.name.startswith(OBJECTS)}
    others = [
        path
        for path in paths
        if not path.name.startswith(OBJECTS)
        and any(path.parent == same.parent and path.name.endswith(f"_{same.name}") for same in said)
    ]
    return [path for path in paths if path not in others], others


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix.lower() == ".json" and _looks_right(source) else []
    try:
        places = [source, source / "annotations", *(path for path in sorted(source.iterdir()) if _split_of(path.name))]
        found = [path for place in places if place.is_dir() for path in sorted(place.glob("*.json"))]
    except OSError:
        return []
    return [path for path in found if path.is_file() and _looks_right(path)]


def _looks_right(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return sum(f'"{word}"'.encode() in head for word in WANTED) >= 2 or (
        b'"images"' in head and path.stat().st_size > HEAD_BYTES
    )


def _split_of(name: str) -> Split | None:
    """The split that a name such as instances_train2017 speaks of."""
    words = [SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in SPLIT_WORDS]
    return words[0] if words else None


@dataclass(frozen=True)
class _File:
    """One JSON file, being read."""

    root: Path
    path: Path
    options: ReadOptions
    problems: list[str]
    notes: list[str]

    def pairs(self) -> Iterator[Listed]:
        content = self._content()
        classes = self._classes(content)
        images = {image["id"]: image for image in self._records(content["images"], "image", ("id", "file_name"))}
        by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        crowds = 0
        wanted = ("id", "image_id", "category_id", "segmentation")
        for annotation in self._records(content["annotations"], "annotation", wanted):
            if annotation["image_id"] not in images:
                self._refuse(annotation, f"image_id {annotation['image_id']!r} is no image; remove or correct it")
            elif self.options.choice.instances and annotation.get("iscrowd"):
                crowds += 1
            elif classes is None or annotation["category_id"] in classes:
                by_image[annotation["image_id"]].append(annotation)
        if crowds:
            self.notes.append(f"{self.path.name}: {crowds} annotations of crowds left out: they are not single objects")
        self._tell_union(content, by_image)
        if blank := len(images) - len(by_image):
            self.notes.append(f"{self.path.name}: {blank} images without such an object left out")
        split = _split_of(self.path.stem) or _split_of(self.path.parent.name)
        for image_id, found in by_image.items():
            yield from self._of_image(images[image_id], found, split)

    def _of_image(self, image: dict[str, Any], found: list[dict[str, Any]], split: Split | None) -> Iterator[Listed]:
        where = f"{self.path.name}: image {image['id']!r}"
        try:
            size = check_size(image.get("height"), image.get("width"))
            file = self._find(str(image["file_name"]), where, split)
        except BadShape as problem:
            self.problems.append(f"{where}: {problem}; correct it in the JSON")
            return
        except DataError as problem:
            self.problems.append(str(problem))
            return
        good = []
        for annotation in found:
            try:
                check_segmentation(annotation["segmentation"], size)
                good.append(annotation)
            except BadShape as problem:
                self._refuse(annotation, f"{problem}; draw it again or remove it")
        singly = self.options.choice.instances
        for group in [[one] for one in good] if singly else [good] * bool(good):
            number = group[0]["id"]
            yield Listed(
                image_name=str(file),
                mask_name=str(self.path / (f"{file.stem}_{number}.mask" if singly else f"{file.stem}.mask")),
                split=split,
                row=f"{where}, annotation {number!r}" if singly else where,
                mask_content=partial(draw_all, [one["segmentation"] for one in group], size),
                cells={key: str(value) for key, value in image.items() if isinstance(value, str | int)},
            )

    def _content(self) -> dict[str, Any]:
        try:
            content: Any = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: not readable JSON ({error}); export it again") from error
        missing = [word for word in WANTED if not isinstance(content, dict) or not isinstance(content.get(word), list)]
        if missing:
            raise DataError(f"{self.path}: no list {' and no list '.join(missing)}; export it again as COCO JSON")
        return dict(content)

    def _classes(self, content: dict[str, Any]) -> set[Any] | None:
        """Ids of the chosen categories; None for all."""
        if not self.options.choice.classes:
            return None
        named: dict[str, set[Any]] = defaultdict(set)
        for one in self._records(content["categories"], "category", ("id", "name")):
            named[str(one["name"])].add(one["id"])
        numbers = {str(number): {number} for ids in named.values() for number in ids}
        chosen: set[Any] = set()
        for word in self.options.choice.classes:
            found = named.get(word) or numbers.get(word)
            if not found:
                near = difflib.get_close_matches(word, named, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(named))}"
                raise DataError(f"{self.path}: --class {word!r} is none of its categories; {hint}")
            if found | numbers.get(word, found) != found:
                raise DataError(f"{self.path}: --class {word!r} is the name of one category and the id of another")
            chosen |= found
        return chosen

    def _tell_union(self, content: dict[str, Any], by_image: Mapping[Any, Sequence[Mapping[str, Any]]]) -> None:
        """A note if objects of several categories become one mask, though nobody said so."""
        counts = Counter(repr(one["category_id"]) for found in by_image.values() for one in found)
        if self.options.choice.classes or len(counts) < 2:
            return
        names = {repr(one.get("id")): str(one.get("name")) for one in content["categories"] if isinstance(one, dict)}
        shown = ", ".join(f"{names.get(number, number)} ({count:,})" for number, count in counts.most_common(SHOWN))
        more = ", ..." if len(counts) > SHOWN else ""
        text = f"objects of all {len(counts)} categories count: {shown}{more}; choose with --class"
        self.notes.append(f"{self.path.name}: {text}")

    def _records(self, items: Sequence[Any], what: str, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The entries that are complete and whose ids are new; the others are problems."""
        seen: Counter[str] = Counter()
        for position, item in enumerate(items, start=1):
            where = f"{self.path.name}: {what} {position}"
            missing = [key for key in keys if not isinstance(item, dict) or key not in item]
            if missing:
                self.problems.append(f"{where} has no {' and no '.join(missing)}; export the file again")
                continue
            odd = [key for key in keys if key.endswith("id") and not isinstance(item[key], str | int)]
            seen[repr(item["id"])] += 1
            if odd or seen[repr(item["id"])] > 1:
                reason = (
                    f"{odd[0]} {item[odd[0]]!r} is no number or text" if odd else f"id {item['id']!r} is used twice"
                )
                self.problems.append(f"{where}: {reason}; export the file again")
                continue
            yield item

    def _find(self, name: str, where: str, split: Split | None) -> Path:
        folders = [self.path.parent, self.path.parent / "images", self.root, self.root / "images"]
        for base in (self.root, self.root / "images"):
            folders.append(base / re.sub(r"^instances_", "", self.path.stem))
            folders += [base / word for word, meant in SPLIT_WORDS.items() if meant == split]
        for folder in folders:
            path = inside(folder, name, where, "file_name")
            try:
                if path.is_file():
                    return path
            except (OSError, ValueError):
                break  # a name that no file can have
        raise DataError(f"{where}: {name!r} {NO_FILE}")

    def _refuse(self, annotation: dict[str, Any], reason: str) -> None:
        self.problems.append(f"{self.path.name}: annotation {annotation['id']!r}: {reason}")
