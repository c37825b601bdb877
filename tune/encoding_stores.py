"""What all trials of a sweep share is made before the first of them takes a processor: encodings of frozen models, and
decoded and resized images, in one store for each kind on the disk of every machine that can train (`infosam.stored`).

Every image is encoded once: Ray Data maps over the images on all machines, with the resources a trial's worker would
get (and as many threads, so that the numbers are those a trial would compute), and every block of rows goes to one
keeper on each machine, which writes its machine's copy. So all machines read the same numbers. What takes less time
than starting processes is made by the sweep itself. A machine that comes later gets its stores from its first training
process (`tune.worker`). Whatever goes wrong, trials compute what is missing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal

from infosam.config import RunConfig
from infosam.errors import ConfigError
from tune.config import SweepConfig
from tune.home import of_this_machine
from tune.plan import SweepPlan
from tune.resources import cluster_nodes, count_slots, training_machines
from tune.space import configured, sample
from tune.store_makers import BLOCK_ROWS, Keeper, Maker, data_context

if TYPE_CHECKING:
    from infosam.stored import Content, Encoding

SHORT_S = 30.0
"""What takes less is made by the sweep's own process: starting others takes most of that on slow cores."""
_RAY_NAMES = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
DRAWS = 64
"""Configurations of the space that are looked at for what trials will use."""


class Stores:
    """What a sweep made, in use until `release`: no other sweep makes room by it before the trials have it open.

    `shared` names the kinds that a machine which comes later is to make for itself, as `tune.worker.WorkerSetup` has
    them."""

    def __init__(self, shared: Sequence[Any] = (), held: Sequence[Any] = ()) -> None:
        self.shared = tuple(what if isinstance(what, str) else tuple(what) for what in shared)
        self._held = list(held)

    def release(self) -> None:
        """Lets them go, and ends the processes that kept them."""
        self._held.clear()


def build_stores(plan: SweepPlan, materials: Any, console: Console, *, warn: Callable[[str], None]) -> Stores:
    """Makes what is missing on the machines of the Ray that is connected; raises nothing but KeyboardInterrupt.

    Args:
        materials: as `infosam.materials.Materials`; a training whose materials have no `content` shares nothing.
        warn: hears, once, of what could not be made.
    """
    if plan.stores is None or not hasattr(materials, "content"):
        return Stores()
    builder = _Builder(plan, plan.stores, materials)
    problems: list[str] = []
    shared: list[Any] = []
    with console.status("") as status:
        for what in ("train", "val", *_wanted_or_none(plan.config, problems)):
            try:
                builder.build(what, status.update)
                shared.append(what)
            except Exception as error:  # noqa: BLE001 - without a store trials are slower, and nothing else
                problems.append(_reason(error))
    if builder.machines == 0:
        text = "No machine can train yet: the first training process of each makes what its trials will share"
        console.print(text, style="dim", soft_wrap=True, highlight=False)
    if plan.config.run.augment.variants is None:
        text = "run.augment makes another picture of an image each time, so encodings of frozen models cannot be kept"
        console.print(text, style="dim")
    if problems:
        warn(f"{problems[0]}; without these stores every training process makes and keeps its own (resources.stores)")
    if builder.made:
        text = f"Made once for all trials: {', '.join(builder.made)}; {decimal(builder.bytes)} in {plan.stores}"
        console.print(text, style="dim", soft_wrap=True, highlight=False)
    return Stores(shared, builder.held)


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
        self._limit_bytes = plan.stores_limit_bytes
        self._machines = training_machines(plan.config.resources)
        self._keepers: list[Any] = []
        self._held: list[Any] = []
        self._patience_s = plan.config.resources.step_timeout_s
        self.made: list[str] = []
        self.bytes = 0  # on this machine

    @property
    def machines(self) -> int:
        """How many can train by now."""
        return len(self._machines)

    @property
    def held(self) -> list[Any]:
        """Keeps all stores in use as long as it lives."""
        return [*self._held, *self._keepers]

    def build(self, what: Encoding | str, tell: Callable[[str], None]) -> None:
        """One store on every machine. Raises what went wrong, for whatever machine."""
        from infosam.tensor_store import open_sound

        if not self._machines:
            return
        content = self._materials.content(what)
        text = f"{content.rows} {_name(what)}"
        tell(f"Looking for {text}")
        path = content.path(of_this_machine(self._folder))
        if list(self._machines) == [socket.gethostname()]:
            if (found := open_sound(path, rows=content.rows)) is not None:
                self._held.append(found)
                return
            if self._is_short(content):
                self._make_here(content, lambda done: tell(f"Making {text}: {done}"))
                self._note(text, path)
                return
        if self._make_everywhere(what, content, lambda done: tell(f"Making {text}: {done}")):
            self._note(text, path)

    def _is_short(self, content: Content) -> bool:
        """Whether one process makes it as fast as others would start; the first row takes longer than the others."""
        return self._seconds(content) < SHORT_S or self._seconds(content) < SHORT_S

    def _seconds(self, content: Content) -> float:
        """How long all rows take, by one of them."""
        with self._own_threads():
            started = time.perf_counter()
            content.make(0)
            return (time.perf_counter() - started) * content.rows

    def _make_here(self, content: Content, tell: Callable[[int], None]) -> None:
        """In this process."""
        folder = of_this_machine(self._folder)
        with self._own_threads():
            self._held.append(content.build(folder, limit_bytes=self._limit_bytes, tell=tell))

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
                if ray.get(keeper.begin.remote(*key), timeout=self._patience_s):
                    lacking.append(keeper)
            done = 0
            for block, rows in self._blocks(what, content.rows) if lacking else ():
                ray.get([keeper.add.remote(block) for keeper in lacking], timeout=self._patience_s)
                done += rows
                tell(done)
            ray.get([keeper.finish.remote() for keeper in lacking], timeout=self._patience_s)
        except ray.exceptions.GetTimeoutError:
            self._give_up_keepers()
            raise
        finally:
            for keeper in lacking:
                keeper.give_up.remote()
        return bool(lacking)

    def _give_up_keepers(self) -> None:
        """Ends those that wait, and what they wait with."""
        import ray

        for keeper in self._keepers:
            ray.kill(keeper)
        self._keepers = []

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
        """References of tables of rows, in their order, and how many rows each has: a map of Ray Data over the numbers.

        The numbers are blocks already: makers may hold all processors, and a source of tasks would wait for one."""
        import pyarrow as pa
        import ray

        plan, resources = self._plan, self._plan.config.resources
        starts = range(0, rows, BLOCK_ROWS)
        numbers = [pa.table({"index": range(start, min(start + BLOCK_ROWS, rows))}) for start in starts]
        options: dict[str, Any] = {_RAY_NAMES[name]: amount for name, amount in resources.bundle.items()}
        options["max_restarts"] = 0  # else Ray tells the terminal what it would do with a dead one
        fitting = count_slots(resources, cluster_nodes(), rows) * resources.workers_per_trial
        with data_context(self._patience_s):
            made = ray.data.from_arrow(numbers).map_batches(
                Maker,
                fn_constructor_kwargs={
                    "training": plan.training,
                    "model": plan.config.run.model.model_dump(mode="json"),
                    "data": str(plan.config.data),
                    "device": plan.device,
                    "threads": self._threads,
                    "stores": str(self._folder),
                    "what": what,
                    "fetch": dict(resources.fetch),
                },
                batch_size=BLOCK_ROWS,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=min(fitting, len(numbers))),
                **options,
            )
        for bundle in made.iter_internal_ref_bundles():
            for block in bundle.blocks:
                yield block.ref, block.metadata.num_rows

    def _note(self, text: str, path: Path) -> None:
        self.made.append(text)
        self.bytes += path.stat().st_size if path.exists() else 0

    @property
    def _threads(self) -> int:
        return max(1, int(self._plan.config.resources.cpus_per_worker))


def _name(what: Encoding | str) -> str:
    if isinstance(what, str):
        return f"decoded images of {what}"
    return f"encodings by the {what.of}" if what.block is None else f"inputs of block {what.block}"


def _reason(error: Exception) -> str:
    """In one line; what a process of Ray raised says it itself."""
    if type(error).__name__ == "GetTimeoutError":
        return "other processes did not answer within resources.step_timeout_s"
    cause: BaseException = error
    while (inner := getattr(cause, "cause", None)) is not None:
        cause = inner
    lines = str(cause).strip().splitlines()
    return lines[-1].strip() if lines else repr(cause)
