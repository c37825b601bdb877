"""Masks of every picture in a folder or bucket, by Ray Data over the machines of a cluster."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cluster.adapters import Adapters
from cluster.batch_summary import COLUMNS, Summary
from infosam.data.card import AUTO, PLAIN
from infosam.data.remote import file_system
from infosam.errors import DataError, UserError

if TYPE_CHECKING:
    import pandas as pd

    from infosam.prompt_files import ImagePrompt

TOGETHER = 4
"""Pictures that go through the model at once."""
MASKS = "masks"
NOTES, REFUSAL = "notes", "refusal"
"""Of a row, beside `COLUMNS`: what the worker has to say about its adapters, and why it cannot work at all."""


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """What to segment and with what.

    `source` and `out` are folders or addresses such as s3://bucket/folder that every machine can reach."""

    source: str
    out: str
    adapters: Adapters
    domain: str = AUTO
    prompts: Mapping[str, ImagePrompt] = field(default_factory=dict)  # by what `prompts_file` calls their pictures
    prompts_file: str = ""
    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    overwrite: bool = False


def segment_all(request: BatchRequest, tell: Callable[[int, int], None], warn: Callable[[str], None]) -> Counter[str]:
    """Writes OUT/masks/NAME.png for every picture, subfolders kept, and OUT/summary.csv; pictures whose mask and row
    are there already are left out, so that a run that was cut off goes on. A picture that cannot be read has its reason
    in the summary, which has a row for each picture of all runs.

    Needs a connected Ray. `tell` is called with (pictures done, pictures in all), `warn` with what is wrong with
    adapters that are left out. Returns pictures by domain, "" for plain SAM, and under "problem" and "before" those
    that failed and those that were there. Raises DataError, or UserError where a machine cannot use what was asked for.
    """
    names = _pictures(request.source)
    request = replace(request, prompts=_matched(request, names))
    summary = Summary(*file_system(_address(request.out)))
    masks = set() if request.overwrite else _made(request.out)
    before = {name for name in summary.made if _mask_name(name) in masks}
    left = [name for name in names if name not in before]
    counts: Counter[str] = Counter({"before": len(names) - len(left)})
    warned: set[str] = set()
    try:
        for done, row in enumerate(_segmented(request, left) if left else (), start=1):
            if row[REFUSAL]:
                raise UserError(str(row[REFUSAL]))
            for note in set(str(row[NOTES]).splitlines()) - warned:
                warned.add(note)
                warn(note)
            summary.add(row)
            counts["problem" if row["problem"] else row["domain"]] += 1
            tell(done, len(left))
    finally:
        summary.write()
    return counts


def _matched(request: BatchRequest, names: list[str]) -> dict[str, ImagePrompt]:
    from infosam.prompt_files import match_prompts

    _, root = file_system(_address(request.source))
    return match_prompts(request.prompts, names, request.prompts_file, root=root)


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
        """One that cannot have the adapters says so with every picture: an actor that raises here would be tried again
        and again, and its reason lost among Ray's own words."""
        self._request = request
        self._refusal, self._notes = "", ""
        try:
            filled = request.adapters.pool()
            filled.require(request.domain)
            self._pool, self._notes = filled.pool, "\n".join(filled.problems)
        except UserError as problem:
            self._refusal = str(problem)
        self._from, self._root = file_system(_address(request.source))
        self._to, self._out = file_system(_address(request.out))

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Segments a few pictures; a row of `COLUMNS` for each, with `NOTES` and `REFUSAL`."""
        import pandas as pd

        names = [str(name) for name in batch["image"]]
        rows = [_failed(name, "") for name in names] if self._refusal else self._rows(names)
        return pd.DataFrame(rows, columns=list(COLUMNS)).assign(**{NOTES: self._notes, REFUSAL: self._refusal})

    def _rows(self, names: list[str]) -> list[dict[str, Any]]:
        """One that cannot be segmented is found by taking them one by one."""
        try:
            return self._together(names)
        except (UserError, OSError) as error:
            if len(names) == 1:
                return [_failed(names[0], str(error))]
            return [row for name in names for row in self._rows([name])]

    def _together(self, names: list[str]) -> list[dict[str, Any]]:
        from infosam.mask_codes import png_of
        from infosam.predict import decode_image

        images = [decode_image(self._content(name), name) for name in names]
        prompts = [self._request.prompts.get(name) for name in names]
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
                    "reason": made.reason,
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


def _failed(name: str, problem: str) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"image": name, "domain": "", "version": "", "reason": "", "problem": problem}


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
