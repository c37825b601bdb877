"""What all trials of a sweep share is made before the first of them takes a processor: encodings of frozen models, and
decoded and resized images, in one store for each kind on the disk of every machine that can train (`infosam.stored`).

Every image is encoded once: makers on all machines, with the resources a trial's worker would get (and as many threads,
so that the numbers are those a trial would compute), take turns at blocks of rows, and every block goes to one keeper
on each machine, which writes its machine's copy. So all machines read the same numbers. What takes less time than
starting processes is made by the sweep itself. Whatever goes wrong, trials compute what is missing.

Plain actors instead of Ray Data: in Ray 2.60 a map over a pool of actors that takes all processors of a machine had not
given its first block within 120 s where this was done in seconds, with a source that needs tasks and with one that
needs none."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal

from infosam.config import ModelConfig, RunConfig
from infosam.errors import ConfigError
from tune.config import SweepConfig
from tune.fetched import fetch_all
from tune.home import of_this_machine
from tune.plan import SweepPlan
from tune.resources import cluster_nodes, count_slots, training_machines
from tune.space import configured, sample
from tune.worker import training_entry

if TYPE_CHECKING:
    import pyarrow as pa

    from infosam.stored import Content, Encoding
    from infosam.tensor_store import RowType

SHORT_S = 30.0
"""What takes less is made by the sweep's own process: starting others takes most of that on slow cores."""
_RAY_NAMES = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
BLOCK_ROWS = 8
"""Rows that go from one process to another at a time."""
AHEAD = 2
"""Blocks asked of a maker before the first of them is written."""
DRAWS = 64
"""Configurations of the space that are looked at for what trials will use."""


def build_stores(plan: SweepPlan, materials: Any, console: Console, *, warn: Callable[[str], None]) -> None:
    """Makes what is missing on the machines of the Ray that is connected; raises nothing but KeyboardInterrupt.

    Args:
        materials: as `infosam.materials.Materials`; a training whose materials have no `content` shares nothing.
        warn: hears, once, of what could not be made.
    """
    if plan.stores is None or not hasattr(materials, "content"):
        return
    builder = _Builder(plan, plan.stores, materials)
    problems: list[str] = []
    with console.status("") as status:
        for what in ("train", "val", *_wanted_or_none(plan.config, problems)):
            try:
                builder.build(what, status.update)
            except Exception as error:  # noqa: BLE001 - without a store trials are slower, and nothing else
                problems.append(_reason(error))
    if plan.config.run.augment.variants is None:
        text = "run.augment makes another picture of an image each time, so encodings of frozen models cannot be kept"
        console.print(text, style="dim")
    if problems:
        warn(f"{problems[0]}; without these stores every training process makes and keeps its own (resources.stores)")
    if builder.made:
        text = f"Made once for all trials: {', '.join(builder.made)}; {decimal(builder.bytes)} in {plan.stores}"
        console.print(text, style="dim", soft_wrap=True, highlight=False)


def wanted(config: SweepConfig) -> list[Encoding]:
    """Encodings that more than one trial can be expected to use, those that most use first."""
    from infosam.stored import encodings_of

    counts = Counter(one for run in _drawn(config) for one in encodings_of(run))
    trials = config.search.trials + config.final.trials * config.final.active
    return [one for one, count in counts.most_common() if count / DRAWS * trials > 1]


def _drawn(config: SweepConfig) -> Iterator[RunConfig]:
    """Configurations at random, as the search begins."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(DRAWS):
        with contextlib.suppress(ConfigError):  # the search would be told as well
            yield configured(config.run, sample(config.space, study.ask()))


def _wanted_or_none(config: SweepConfig, problems: list[str]) -> Sequence[Any]:
    try:
        return wanted(config)
    except Exception as error:  # noqa: BLE001 - see build_stores
        problems.append(_reason(error))
        return ()


class _Builder:
    """Makes one store after the other; those it made are in use, so that none makes room for the next."""

    def __init__(self, plan: SweepPlan, folder: Path, materials: Any) -> None:
        self._plan = plan
        self._folder = folder
        self._materials = materials
        self._limit_bytes = int(plan.config.resources.stores.limit_gib * 2**30)
        self._machines = training_machines(plan.config.resources)
        self._keepers: list[Any] = []
        self._held: list[Any] = []
        self.made: list[str] = []
        self.bytes = 0  # on this machine

    def build(self, what: Encoding | str, tell: Callable[[str], None]) -> None:
        """One store on every machine. Raises what went wrong, for whatever machine."""
        from infosam.tensor_store import open_sound

        content = self._materials.content(what)
        text = f"{content.rows} {_name(what)}"
        tell(f"Looking for {text}")
        path = content.path(of_this_machine(self._folder))
        if list(self._machines) == [socket.gethostname()]:
            if (found := open_sound(path, rows=content.rows)) is not None:
                self._held.append(found)
                return
            if self._seconds(content) < SHORT_S:
                self._make_here(content)
                self._note(text, path)
                return
        if self._make_everywhere(what, content, lambda done: tell(f"Making {text}: {done}")):
            self._note(text, path)

    def _seconds(self, content: Content) -> float:
        """How long it takes one process."""
        with self._own_threads():
            content.make(0)  # the first takes longer
            started = time.perf_counter()
            content.make(0)
            return (time.perf_counter() - started) * content.rows

    def _make_here(self, content: Content) -> None:
        """In this process."""
        from infosam.tensor_store import open_store

        with self._own_threads():
            path = content.build(of_this_machine(self._folder), limit_bytes=self._limit_bytes)
        self._held.append(open_store(path, rows=content.rows))

    @contextlib.contextmanager
    def _own_threads(self) -> Iterator[None]:
        """As many as a trial's process has: the numbers are then those it would compute."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _make_everywhere(self, what: Encoding | str, content: Content, tell: Callable[[int], None]) -> bool:
        """On the machines that lack it, each image once; whether any did."""
        import ray

        keepers = self._started_keepers()
        key = (dict(content.key), content.rows, content.dtype)
        lacking: list[Any] = []
        try:
            for keeper in keepers:  # in turn: of two sweeps that begin at once, one waits at the first machine
                if ray.get(keeper.begin.remote(*key)):
                    lacking.append(keeper)
            done = 0
            for block, rows in self._blocks(what, content.rows) if lacking else ():
                ray.get([keeper.add.remote(block) for keeper in lacking])
                done += rows
                tell(done)
            ray.get([keeper.finish.remote() for keeper in lacking])
        finally:
            for keeper in lacking:
                keeper.give_up.remote()
        return bool(lacking)

    def _started_keepers(self) -> list[Any]:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if not self._keepers:
            keeper: Any = ray.remote(num_cpus=0)(Keeper)
            self._keepers = [
                keeper.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                    str(self._folder), self._limit_bytes
                )
                for node in self._machines.values()
            ]
        return self._keepers

    def _blocks(self, what: Encoding | str, rows: int) -> Iterator[tuple[Any, int]]:
        """References of tables of rows, in their order, and how many rows each has."""
        import ray

        plan, resources = self._plan, self._plan.config.resources
        starts = range(0, rows, BLOCK_ROWS)
        fitting = count_slots(resources, cluster_nodes(), rows) * resources.workers_per_trial
        maker_class: Any = ray.remote(Maker)
        maker = maker_class.options(**{_RAY_NAMES[name]: amount for name, amount in resources.bundle.items()})
        makers = [
            maker.remote(
                plan.training, plan.config.run.model.model_dump(mode="json"), str(plan.config.data),
                device=plan.device, threads=self._threads, stores=str(self._folder), what=what, fetch=resources.fetch,
            )
            for _ in range(min(fitting, len(starts)))
        ]  # fmt: skip
        pending: deque[tuple[Any, int]] = deque()
        try:
            for number, start in enumerate(starts):
                numbers = list(range(start, min(start + BLOCK_ROWS, rows)))
                pending.append((makers[number % len(makers)].make.remote(numbers), len(numbers)))
                if len(pending) > AHEAD * len(makers):
                    yield pending.popleft()
            yield from pending
        finally:
            for one in makers:
                ray.kill(one)

    def _note(self, text: str, path: Path) -> None:
        self.made.append(text)
        self.bytes += path.stat().st_size if path.exists() else 0

    @property
    def _threads(self) -> int:
        return max(1, int(self._plan.config.resources.cpus_per_worker))


class Maker:
    """Makes rows of a store, in a process with the resources of a trial's worker."""

    def __init__(
        self,
        training: str,
        model: Mapping[str, Any],
        data: str,
        *,
        device: str,
        threads: int,
        stores: str,
        what: Any,
        fetch: Mapping[str, str],
    ) -> None:
        import torch

        fetch_all(fetch)

        torch.set_num_threads(threads)
        folder = of_this_machine(Path(stores))
        entry, settings = training_entry(training), ModelConfig.model_validate(model)
        materials = entry.load_materials(settings, Path(data), device=device, baselines=False, stores=folder)
        self._content: Content = materials.content(what)

    def make(self, numbers: Sequence[int]) -> pa.Table:
        """Rows by their numbers, with their numbers."""
        import pyarrow as pa

        from infosam.tensor_store import packed

        rows = [packed(self._content.make(index), self._content.dtype) for index in numbers]
        contents, shapes = zip(*rows, strict=True)
        columns = {
            "index": pa.array(numbers, pa.int64()),
            "content": pa.array(contents, pa.large_binary()),
            "shape": pa.array(shapes, pa.list_(pa.int64())),
        }
        return pa.table(columns)


class Keeper:
    """Writes the stores of one machine, and keeps them from being removed as long as it lives."""

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self._folder = of_this_machine(Path(folder))
        self._limit_bytes = limit_bytes
        self._held: list[Any] = []
        self._writer: Any = None
        self._rows = 0

    def begin(self, key: Mapping[str, Any], rows: int, dtype: RowType) -> bool:
        """Whether this machine lacks a sound store; waits for another sweep that is writing it. Raises StoreFull."""
        from infosam.tensor_store import StoreWriter, open_sound, store_path

        path = store_path(self._folder, key)
        self._rows = rows
        self._writer = StoreWriter(path, dtype=dtype, rows=rows, limit_bytes=self._limit_bytes)
        if (found := open_sound(path, rows=rows)) is None:
            return True
        self._held.append(found)
        self._writer.close()
        return False

    def add(self, table: pa.Table) -> None:
        """The next rows. Raises StoreFull."""
        for row in table.to_pylist():
            if row["index"] != self._writer.rows:
                raise RuntimeError(f"row {row['index']} came where {self._writer.rows} was expected")
            self._writer.add(row["content"], row["shape"])

    def finish(self) -> None:
        """Puts the store in its place. Raises StoreFull."""
        from infosam.tensor_store import open_store

        if self._writer.rows != self._rows:
            raise RuntimeError(f"{self._writer.rows} rows came, {self._rows} were expected")
        self._writer.finish()
        self._held.append(open_store(self._writer.path, rows=self._rows))

    def give_up(self) -> None:
        """Ends a store that was not finished."""
        self._writer.close()


def _name(what: Encoding | str) -> str:
    if isinstance(what, str):
        return f"decoded images of {what}"
    return f"encodings by the {what.of}" if what.block is None else f"inputs of block {what.block}"


def _reason(error: Exception) -> str:
    """In one line; what a process of Ray raised says it itself."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return lines[-1].strip() if lines else repr(cause)
