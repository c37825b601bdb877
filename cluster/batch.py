"""Masks of every picture in a folder or bucket, by Ray Data over the machines of a cluster."""

from __future__ import annotations

import contextlib
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cluster.adapters import Adapters
from infosam.data.card import AUTO, PLAIN
from infosam.data.remote import file_system
from infosam.errors import DataError, UserError

if TYPE_CHECKING:
    import pandas as pd

    from infosam.prompt_files import ImagePrompt

TOGETHER = 4
"""Pictures that go through the model at once."""
MASKS, SUMMARY = "masks", "summary.csv"
COLUMNS = ("image", "domain", "version", "score", "threshold", "area", "problem")


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What to segment and with what.

    `source` and `out` are folders or addresses such as s3://bucket/folder that every machine can reach."""

    source: str
    out: str
    adapters: Adapters
    domain: str = AUTO
    prompts: Mapping[str, ImagePrompt] = field(default_factory=dict)  # by file name
    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    overwrite: bool = False


def segment_all(request: BatchRequest, tell: Callable[[int, int], None]) -> Counter[str]:
    """Writes OUT/masks/NAME.png for every picture, subfolders kept, and OUT/summary.csv; masks that are there already
    are left out, so that a run that was cut off goes on. A picture that cannot be read has its reason in the summary.

    Needs a connected Ray. `tell` is called with (pictures done, pictures in all). Returns pictures by domain, "" for
    plain SAM, and under "problem" and "before" those that failed and those that were there. Raises DataError."""
    names = _pictures(request.source)
    before = set() if request.overwrite else _made(request.out)
    left = [name for name in names if _mask_name(name) not in before]
    counts: Counter[str] = Counter({"before": len(names) - len(left)})
    rows: list[Mapping[str, Any]] = []
    for row in _segmented(request, left) if left else ():
        rows.append(row)
        counts["problem" if row["problem"] else row["domain"]] += 1
        tell(len(rows), len(left))
    _write_summary(request.out, sorted(rows, key=lambda row: str(row["image"])))
    return counts


def _segmented(request: BatchRequest, names: list[str]) -> Iterator[Mapping[str, Any]]:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    pictures = ray.data.from_items([{"image": name} for name in names], override_num_blocks=_blocks(request, names))
    made = pictures.map_batches(
        Worker,
        fn_constructor_args=(request,),
        batch_size=TOGETHER,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=request.workers),
        num_cpus=request.cpus_per_worker,
        num_gpus=request.gpus_per_worker,
    )
    yield from made.iter_rows()


def _blocks(request: BatchRequest, names: list[str]) -> int:
    """Small enough that all workers have something to do until the end."""
    return max(1, min(len(names) // TOGETHER, 16 * request.workers))


class Worker:
    """One process with a pool of adapters; Ray Data calls it with names of pictures."""

    def __init__(self, request: BatchRequest) -> None:
        self._request = request
        self._pool, _ = request.adapters.pool()
        self._from, self._root = file_system(_address(request.source))
        self._to, self._out = file_system(_address(request.out))

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Segments a few pictures; a row of `COLUMNS` for each."""
        import pandas as pd

        rows = self._rows([str(name) for name in batch["image"]])
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _rows(self, names: list[str]) -> list[dict[str, Any]]:
        """One that cannot be segmented is found by taking them one by one."""
        try:
            return self._together(names)
        except (UserError, OSError) as error:
            if len(names) == 1:
                return [dict.fromkeys(COLUMNS) | {"image": names[0], "domain": "", "problem": str(error)}]
            return [row for name in names for row in self._rows([name])]

    def _together(self, names: list[str]) -> list[dict[str, Any]]:
        from infosam.mask_codes import png_of
        from infosam.predict import decode_image

        images = [decode_image(self._content(name), name) for name in names]
        prompts = [self._request.prompts.get(PurePosixPath(name).name) for name in names]
        asked = None if self._request.domain == PLAIN else self._request.domain
        rows = []
        for name, made in zip(names, self._pool.predict_batch(images, prompts, [asked] * len(names)), strict=True):
            self._write(_mask_name(name), png_of(made.mask))
            rows.append(
                {
                    "image": name,
                    "domain": made.domain or "",
                    "version": made.version or "",
                    "score": made.score,
                    "threshold": made.threshold,
                    "area": float(made.mask.mean()),
                    "problem": "",
                }
            )
        return rows

    def _content(self, name: str) -> bytes:
        with self._from.open_input_stream(f"{self._root}/{name}") as stream:
            return bytes(stream.read())

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all: under another name first."""
        path = PurePosixPath(self._out) / MASKS / name
        self._to.create_dir(str(path.parent), recursive=True)
        with self._to.open_output_stream(f"{path}.part") as stream:
            stream.write(content)
        self._to.move(f"{path}.part", str(path))


def _pictures(source: str) -> list[str]:
    """Paths below `source`, sorted. Raises DataError for none, or two whose masks would have one name."""
    from infosam.predict import IMAGE_SUFFIXES

    names = [name for name in _listed(source) if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    if not names:
        raise DataError(f"no images in {source}; known endings: {', '.join(IMAGE_SUFFIXES)}")
    doubled = [name for name, count in Counter(map(_mask_name, names)).items() if count > 1]
    if doubled:
        raise DataError(f"{source}: several images would have the mask {doubled[0]}; keep one of them, or rename")
    return names


def _made(out: str) -> set[str]:
    with contextlib.suppress(DataError):
        return {name for name in _listed(f"{out.rstrip('/')}/{MASKS}") if name.endswith(".png")}
    return set()


def _listed(source: str) -> list[str]:
    """Files below an address, relative to it, sorted. Raises DataError if there is no such folder."""
    import pyarrow.fs

    system, root = file_system(_address(source))
    try:
        found = system.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
    except OSError as error:
        raise DataError(f"{source}: cannot be listed: {error}") from error
    files = (item.path for item in found if item.type == pyarrow.fs.FileType.File)
    return sorted(str(PurePosixPath(path).relative_to(root)) for path in files)


def _address(text: str) -> str:
    """What Arrow takes: a folder must be absolute."""
    return text if "://" in text else str(Path(text).absolute())


def _mask_name(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".png"))


def _write_summary(out: str, rows: list[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    system, root = file_system(_address(out))
    system.create_dir(root, recursive=True)
    with system.open_output_stream(f"{root}/{SUMMARY}") as stream:
        stream.write(text.getvalue().encode())
