"""What a sweep makes for all of its trials before they start: once, whole, on each machine, and never in their way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from rich.console import Console

import tune.encoding_stores
from infosam.config import ModelConfig
from infosam.frozen import FrozenEncodings, Kind
from infosam.materials import Materials, load_materials
from infosam.stored import Encoding
from infosam.tensor_store import StoreFull, make_room, open_sound, open_store, packed
from infosam.training import train
from tune.config import SweepConfig, parse_sweep_config
from tune.encoding_stores import build_stores, wanted
from tune.home import Home, of_this_machine
from tune.plan import SweepPlan, make_plan
from tune.runner import run_sweep
from tune.space import configured
from tune.store_makers import Keeper
from tune.worker import WorkerSetup, load, training_entry

MODEL = ModelConfig(image_px=64)
TEACHER = Encoding("base", None, "float16")
Configure = Callable[..., SweepConfig]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def configure(dataset: Path) -> Configure:
    """A sweep of two trials on a small canvas; configure("a.b=c") changes a setting."""

    def make(*overrides: str, **settings: Any) -> SweepConfig:
        base = {
            "data": str(dataset),
            "run": {"model": {"image_px": 64}, "train": {"epochs": 2, "batch_size": 2}},
            "space": {"optim.lr": {"log_uniform": [1e-4, 1e-2]}},
            "search": {"trials": 2},
            "warm_start": "off",
        }
        return parse_sweep_config({**base, **settings}, overrides, source="test")

    return make


@pytest.fixture(scope="module")
def materials(dataset: Path) -> Materials:
    """As the driver of a sweep has them."""
    return load_materials(MODEL, dataset, device="cpu", baselines=False)


def built(plan: SweepPlan, materials: Materials, console: Console) -> tuple[list[str], str]:
    """What was warned of, and what was printed."""
    warnings: list[str] = []
    build_stores(plan, materials, console, warn=warnings.append).release()
    return warnings, console.export_text()


def folder_of(plan: SweepPlan) -> Path:
    assert plan.stores is not None
    return of_this_machine(plan.stores)


class TestWanted:
    def test_what_several_trials_will_use_those_of_most_first(self, configure: Configure) -> None:
        space = {
            "peft.kind": {"choice": ["lora", "decoder"]},
            "peft.first_block": {"choice": [0, 2, 4, 5], "when": {"peft.kind": "lora"}},
            "info.distillation": {"uniform": [0.1, 1]},
        }
        found = wanted(configure("search.trials=40", space=space))
        assert found[0] == TEACHER
        assert set(found[1:]) == {Encoding("base", block, "float16") for block in (2, 4, 5)}
        assert wanted(configure("search.trials=4", space=space)) == [TEACHER]

    def test_nothing_where_every_image_is_changed(self, configure: Configure) -> None:
        assert wanted(configure("run.augment.flip=0.5", "run.augment.colour=0.1")) == []
        assert wanted(configure("run.augment.flip=0.5")) == [TEACHER._replace(variants=4)]

    def test_nothing_for_one_trial(self, configure: Configure) -> None:
        assert wanted(configure("search.trials=1")) == []


@pytest.mark.usefixtures("ray_cluster")
class TestBuilding:
    def test_little_work_is_done_at_once_and_only_once(
        self, configure: Configure, home: Home, materials: Materials, console: Console, dataset: Path
    ) -> None:
        plan = make_plan(configure("run.peft.first_block=3"), home)
        warnings, said = built(plan, materials, console)
        assert warnings == []
        assert (
            "6 decoded images of train, 3 decoded images of val, 6 encodings by the base, 6 inputs of block 3" in said
        )
        stores = sorted(folder_of(plan).glob("*.arrow"))
        assert len(stores) == 4
        sharing = load_materials(MODEL, dataset, device="cpu", baselines=False, stores=folder_of(plan))
        rows = sharing.base_encodings._known(Kind(3, "float16", 1), 5)
        assert rows is not None
        assert torch.equal(rows, materials.content(Encoding("base", 3, "float16")).make(5).half())
        before = [store.stat().st_ino for store in stores]
        assert built(plan, materials, console) == ([], "")
        assert [store.stat().st_ino for store in stores] == before

    def test_a_flipped_byte_is_found_before_the_trials_start(
        self, configure: Configure, home: Home, materials: Materials, console: Console
    ) -> None:
        plan = make_plan(configure(), home)
        built(plan, materials, console)
        path = materials.content(TEACHER).path(folder_of(plan))
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[len(sound) // 2] ^= 4
        path.write_bytes(damaged)
        warnings, said = built(plan, materials, console)
        assert warnings == []
        assert "Made once for all trials: 6 encodings by the base;" in said
        assert path.read_bytes() == sound

    def test_they_are_in_use_until_they_are_released(
        self, configure: Configure, home: Home, materials: Materials, console: Console
    ) -> None:
        plan = make_plan(configure(), home)
        stores = build_stores(plan, materials, console, warn=pytest.fail)
        assert stores.shared == ("train", "val", ("base", None, "float16", 1))
        with pytest.raises(StoreFull, match="under the limit"):
            make_room(folder_of(plan), 1, 1)
        stores.release()
        make_room(folder_of(plan), 1, 1)
        assert list(folder_of(plan).glob("*.arrow")) == []

    def test_a_machine_that_comes_later_makes_its_own_once(
        self,
        configure: Configure,
        home: Home,
        materials: Materials,
        console: Console,
        dataset: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """As on a cluster whose nodes come when trials wait for them."""
        monkeypatch.setattr(tune.encoding_stores, "training_machines", lambda _: {})
        plan = make_plan(configure(), home)
        stores = build_stores(plan, materials, console, warn=pytest.fail)
        assert "No machine can train yet: the first training process of each makes" in console.export_text()
        assert not folder_of(plan).exists()
        setup = WorkerSetup(
            training="infosam.training", model=MODEL.model_dump(mode="json"), device="cpu", threads=1, backend="gloo",
            exchange_timeout_s=60, stores=str(plan.stores), shared={str(dataset): stores.shared},
        )  # fmt: skip
        made: list[int] = []
        make = FrozenEncodings._encode
        monkeypatch.setattr(FrozenEncodings, "_encode", lambda *args: made.append(1) or make(*args))
        workers = [
            threading.Thread(target=load, args=(training_entry(setup.training), setup, str(dataset))) for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert len(made) == 6
        for what in ("train", "val", TEACHER):
            content = materials.content(what)
            assert open_sound(content.path(folder_of(plan)), rows=content.rows) is not None

    def test_too_little_room_is_said_once_and_stops_nothing(
        self, configure: Configure, home: Home, materials: Materials, console: Console
    ) -> None:
        plan = make_plan(configure("resources.stores.limit_gib=1e-6"), home)
        (warning,), said = built(plan, materials, console)
        assert "under the limit" in warning
        assert "every training process makes and keeps its own" in warning
        assert said == ""
        assert list(folder_of(plan).glob("*.arrow")) == []

    def test_a_folder_that_cannot_be_made_stops_nothing(
        self, configure: Configure, home: Home, materials: Materials, console: Console, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        plan = make_plan(configure(f"resources.stores.folder={tmp_path / 'file' / 'stores'}"), home)
        (warning,), _ = built(plan, materials, console)
        assert "cannot hold the store" in warning

    def test_switched_off_or_without_frozen_models(
        self, configure: Configure, home: Home, materials: Materials, console: Console
    ) -> None:
        off = make_plan(configure("resources.stores.build=false"), home)
        assert (off.stores, built(off, materials, console)) == (None, ([], ""))
        augmented = make_plan(configure("run.augment.colour=0.1"), home)
        warnings, said = built(augmented, materials, console)
        assert warnings == []
        assert "encodings of frozen models cannot be kept" in said
        assert "Made once for all trials: 6 decoded images of train, 3 decoded images of val;" in said

    @pytest.mark.slow
    def test_much_work_is_divided_and_each_machine_has_a_copy(
        self,
        configure: Configure,
        home: Home,
        materials: Materials,
        console: Console,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Two keepers with folders of their own stand in for two machines."""
        import ray

        monkeypatch.setattr(tune.encoding_stores, "SHORT_S", 0.0)
        monkeypatch.setattr(tune.encoding_stores, "BLOCK_ROWS", 2)
        folders = [tmp_path / "one", tmp_path / "two"]
        keeper: Any = ray.remote(num_cpus=0)(Keeper)
        keepers = [keeper.remote(str(folder), 2**30) for folder in folders]
        monkeypatch.setattr(tune.encoding_stores._Builder, "_started_keepers", lambda _: keepers)
        plan = make_plan(configure(), home)
        assert built(plan, materials, console)[0] == []
        for what in ("train", "val", TEACHER):
            content = materials.content(what)
            expected = content.build(tmp_path / "expected").path.read_bytes()
            for folder in folders:
                store = open_store(content.path(of_this_machine(folder)), rows=content.rows)
                assert store is not None
                assert store.path.read_bytes() == expected
        (content.path(of_this_machine(folders[1]))).unlink()  # a machine that lost its copy
        rebuilt = [ray.get(one.begin.remote(dict(content.key), content.rows, content.dtype)) for one in keepers]
        assert rebuilt == [False, True]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_trials_read_what_was_made_and_learn_the_same(
    configure: Configure, home: Home, materials: Materials, console: Console
) -> None:
    config = configure("run.peft.first_block=3", "resources.slots=1", "scheduler.kind=none")
    outcome = run_sweep(config, home=home, console=console, training="sharing_training")
    assert "Made once for all trials" in console.export_text()
    records = outcome.ledger.trials.values()
    assert [record.end.state for record in records if record.end] == ["FINISHED"] * 2
    for record in records:
        *_, last = train(configured(config.run, record.values), materials)
        for name in ("val/dice", "loss/total"):
            assert record.epochs[-1].values[name] == last.values[name]


def table_of(materials: Materials, start: int, end: int) -> pa.Table:
    content = materials.content(TEACHER)
    rows = [packed(content.make(index), content.dtype) for index in range(start, end)]
    contents, shapes = zip(*rows, strict=True)
    return pa.table({"index": list(range(start, end)), "content": contents, "shape": shapes})


class TestKeeper:
    @pytest.fixture
    def key(self, materials: Materials) -> tuple[Any, ...]:
        content = materials.content(TEACHER)
        return content.key, content.rows, content.dtype

    def test_of_two_sweeps_at_once_one_writes(self, materials: Materials, key: tuple[Any, ...], tmp_path: Path) -> None:
        first, second = Keeper(str(tmp_path), 2**30), Keeper(str(tmp_path), 2**30)
        assert first.begin(*key)
        lacks: list[bool] = []
        other = threading.Thread(target=lambda: lacks.append(second.begin(*key)))
        other.start()
        first.add(table_of(materials, 0, 6))
        assert other.is_alive()
        first.finish()
        other.join(60)
        assert lacks == [False]

    def test_what_was_given_up_is_made_by_the_next(
        self, materials: Materials, key: tuple[Any, ...], tmp_path: Path
    ) -> None:
        first, second = Keeper(str(tmp_path), 2**30), Keeper(str(tmp_path), 2**30)
        assert first.begin(*key)
        first.add(table_of(materials, 0, 3))
        first.give_up()
        assert second.begin(*key)
        with pytest.raises(RuntimeError, match="row 3 came where 0 was expected"):
            second.add(table_of(materials, 3, 6))
        second.add(table_of(materials, 0, 3))
        with pytest.raises(RuntimeError, match="3 rows came, 6 were expected"):
            second.finish()
        second.add(table_of(materials, 3, 6))
        second.finish()

    @pytest.mark.usefixtures("ray_cluster")
    def test_one_that_is_killed_leaves_nothing_behind(
        self, materials: Materials, key: tuple[Any, ...], tmp_path: Path
    ) -> None:
        import ray

        class Mortal(Keeper):
            def die(self) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

        remote: Any = ray.remote(num_cpus=0)(Mortal)
        killed = remote.remote(str(tmp_path), 2**30)
        assert ray.get(killed.begin.remote(dict(key[0]), *key[1:]))
        ray.get(killed.add.remote(table_of(materials, 0, 3)))
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(killed.die.remote())
        content = materials.content(TEACHER)
        assert open_store(content.path(of_this_machine(tmp_path)), rows=content.rows) is None
        keeper = Keeper(str(tmp_path), 2**30)
        assert keeper.begin(*key)
        keeper.add(table_of(materials, 0, 6))
        keeper.finish()
        store = open_store(content.path(of_this_machine(tmp_path)), rows=content.rows)
        assert store is not None
        assert all(torch.equal(store.read(index), content.make(index).half()) for index in range(6))
