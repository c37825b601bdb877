"""`infosam prune` on real event logs and a real registry: shows first, removes by rule, never touches a champion."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from typer.testing import CliRunner

from infosam.cli import build_app
from infosam.errors import UserError
from infosam.tensor_store import build_store, open_store, store_path
from tune.champions.lookup import digest_of, resolve
from tune.champions.promotion import promote, rollback
from tune.champions.registry import open_registry
from tune.event_log import NAME, EventLog
from tune.events import EpochReported, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from tune.home import Home
from tune.prune import Kind, Rule, gc_command, parse_age, prune

DAY_S = 86400.0
ALL = Rule(kinds=frozenset(Kind), older_than_s=30 * DAY_S, keep_last=0)
FAKES = Path(__file__).parent / "fakes"


@pytest.fixture
def offered(home: Home, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Offers a bundle of a sweep's trial t0001 that scores so much; champions are fetched by their domain."""
    monkeypatch.syspath_prepend(str(FAKES))
    challengers = importlib.import_module("challengers")

    def offer(sweep: str, dice: float, domain: str = "polyp") -> Any:
        made = challengers.challenger(
            store, home.artifacts.as_uri(), tmp_path / "made", dice, sweep_id=sweep, trial_id="t0001"
        )
        made = dataclasses.replace(made, domain=domain)
        MlflowClient(store).set_tag(made.run_id, "sweep_id", sweep)
        promote(store, made, challengers.rescore)
        return made

    return offer


def make_sweep(home: Home, name: str, *, days: float, reason: Any = "completed") -> Path:
    """A sweep of three trials whose best is t0001, over for so many days; reason None: its driver died."""
    folder = home.sweeps / name
    for number in range(3):
        for part in ("checkpoints/epoch_1", "bundle"):
            (folder / f"trials/t{number:04d}" / part).mkdir(parents=True)
            (folder / f"trials/t{number:04d}" / part / "weights.safetensors").write_bytes(b"x" * 1000)
    (folder / "slots" / "slot-1").mkdir(parents=True)
    with contextlib.closing(EventLog(folder / NAME)) as log:
        log(started(name))
        for number, dice in enumerate((0.5, 0.8, 0.6)):
            trial = f"t{number:04d}"
            log(TrialStarted(trial_id=trial, values={}))
            log(EpochReported(trial_id=trial, epoch=1, values={"val/dice": dice}, checkpoint="x", is_best=True))
            log(TrialEnded(trial_id=trial, state="FINISHED", reason="completed"))
        if reason:
            log(SweepEnded(state="FINISHED", reason=reason, note=""))
    at = time.time() - days * DAY_S
    os.utime(folder / NAME, (at, at))
    return folder


def make_group(home: Home, *members: str) -> Path:
    """The folder of sweeps that ran together."""
    folder = home.sweeps / "-".join(members)
    (folder / "slots" / "slot-1").mkdir(parents=True)
    (folder / "group.yaml").write_text(f"members: [{', '.join(members)}]\n")
    return folder


def started(name: str) -> SweepStarted:
    return SweepStarted(
        sweep_id=name,
        domain="polyp",
        experiment="infosam",
        settings="tracking:\n  uri: null\n",
        params={},
        tags={},
        data={},
        zero_shot={},
        rungs=(1,),
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def removed(pruned: Any) -> set[tuple[str, str]]:
    return {(removal.kind.value, removal.owner) for removal in pruned.removals}


def test_it_shows_first_and_removes_when_told(home: Home, store: str) -> None:
    make_sweep(home, "old", days=40)
    make_sweep(home, "young", days=10)
    run = MlflowClient(store).create_run("0", tags={"sweep_id": "old"}).info.run_id
    before = files(home.sweeps)
    app, runner = build_app()[0], CliRunner()
    shown = runner.invoke(app, ["prune", "--keep-last", "0"])
    assert shown.exit_code == 0, shown.output
    assert files(home.sweeps) == before
    assert "add --yes" in shown.output
    assert gc_command(store) in shown.output
    done = runner.invoke(app, ["prune", "--keep-last", "0", "--yes"])
    assert done.exit_code == 0, done.output
    assert {path.split("/")[0] for path in files(home.sweeps)} == {"young"}
    assert files(home.sweeps) == {path for path in before if path.startswith("young")}
    assert MlflowClient(store).get_run(run).info.lifecycle_stage == "deleted"
    assert "Nothing to remove" in runner.invoke(app, ["prune", "--keep-last", "0"]).output


def test_the_newest_lose_states_and_losing_bundles_only(home: Home, store: str) -> None:
    folder = make_sweep(home, "old", days=40)
    make_sweep(home, "older", days=50)
    found = prune(home, dataclasses.replace(ALL, keep_last=1), remove=True)
    assert removed(found) == {("checkpoints", "old"), ("bundles", "old"), ("sweeps", "older")}
    assert sum(removal.size for removal in found.removals if removal.owner == "old") == 5 * 1000
    assert files(folder) == {NAME, "trials/t0001/bundle/weights.safetensors"}


@pytest.mark.slow
def test_what_an_alias_points_to_is_never_touched(home: Home, store: str, offered: Callable[..., Any]) -> None:
    folders = {name: make_sweep(home, name, days=40) for name in ("a", "b", "c", "d")}
    first = offered("a", 0.75)
    offered("b", 0.8)
    offered("d", 0.72)  # refused, and no challenger any more once the next one is offered
    offered("c", 0.76)  # refused: the challenger
    whole = {name: files(folder / "trials/t0001") for name, folder in folders.items()}
    found = prune(home, ALL, remove=True)
    assert ("sweeps", "d") in removed(found)
    assert not {("sweeps", name) for name in "abc"} & removed(found)
    assert {name: files(folders[name] / "trials/t0001") for name in "abc"} == {name: whole[name] for name in "abc"}
    assert not (folders["d"]).exists()
    command = gc_command(store).replace("mlflow", f"{sys.executable} -m mlflow", 1)
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open_registry(store) as registry:
        rollback(registry, "polyp")
    bundle = resolve("polyp")
    assert bundle is not None
    assert digest_of(bundle) == digest_of(first.bundle)


def test_a_running_sweep_is_not_touched(home: Home, store: str) -> None:
    folder = make_sweep(home, "busy", days=40)
    before = files(folder)
    with contextlib.closing(EventLog(folder / NAME)):
        for remove in (False, True):
            found = prune(home, ALL, remove=remove)
            assert (found.removals, found.kept) == ([], {"busy": "it is running"})
    assert files(folder) == before


@pytest.mark.parametrize("reason", ["user", "driver_died", None])
def test_an_interrupted_sweep_is_kept_whole_or_goes_whole(home: Home, store: str, reason: str | None) -> None:
    make_sweep(home, "halted", days=40, reason=reason)
    assert removed(prune(home, dataclasses.replace(ALL, keep_last=1))) == set()
    assert removed(prune(home, ALL)) == {("sweeps", "halted")}


def test_a_registry_that_does_not_answer_keeps_everything(
    home: Home, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    folder = make_sweep(home, "old", days=40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port}")
    found = prune(home, ALL, remove=True)
    assert not found.removals
    assert "nobody can say whether it holds a champion" in found.kept["old"]
    assert folder.is_dir()


def test_a_damaged_log_keeps_its_sweep(home: Home, store: str) -> None:
    folder = make_sweep(home, "odd", days=40)
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    (folder / NAME).write_bytes(b"".join([lines[0], b"{}\n", *lines[2:]]))
    os.utime(folder / NAME, (0, 0))
    assert "line 2: damaged" in prune(home, ALL, remove=True).kept["odd"]
    assert (folder / "trials").is_dir()


def test_fetched_copies_go_unless_an_alias_needs_them(home: Home, offered: Callable[..., Any]) -> None:
    digest = digest_of(offered("a", 0.8).bundle)
    cache = home.folder / "champions"
    for name in (f"polyp-{digest[:16]}", "polyp-0123456789abcdef", "leaf.part"):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (0, 0))
    (cache / "polyp-young").mkdir()
    assert removed(prune(home, ALL, remove=True)) == {("caches", "polyp-0123456789abcdef"), ("caches", "leaf.part")}
    assert {path.name for path in cache.iterdir()} == {f"polyp-{digest[:16]}", "polyp-young"}


def test_copies_out_of_a_bucket_go_unless_a_sweep_names_them(home: Home, store: str) -> None:
    sweep = make_sweep(home, "kept", days=10)
    (sweep / "sweep.yaml").write_text(f"data: {home.remote}/polyp-1\n")
    going = make_sweep(home, "old", days=40)
    (going / "sweep.yaml").write_text(f"data: {home.remote}/polyp-2\n")
    for name in ("polyp-1", "polyp-2", "polyp-3", ".polyp-4.partial"):
        (home.remote / name).mkdir(parents=True)
        os.utime(home.remote / name, (0, 0))
    (home.remote / "polyp-young").mkdir()
    found = prune(home, ALL, remove=True)
    assert {owner for kind, owner in removed(found) if kind == "caches"} == {
        "remote/polyp-2",
        "remote/polyp-3",
        "remote/.polyp-4.partial",
    }
    assert {path.name for path in home.remote.iterdir()} == {"polyp-1", "polyp-young"}


def test_what_trials_shared_goes_unless_somebody_uses_it(home: Home) -> None:
    folder = home.encodings / "machine"
    paths = [store_path(folder, {"number": number}) for number in range(3)]
    for number, path in enumerate(paths):
        build_store(folder, {"number": number}, [torch.zeros(4)], dtype="float32", rows=1)
        os.utime(path, (0, 0))
    left = folder / "killed.part"
    left.touch()
    os.utime(left, (0, 0))
    reader = open_store(paths[0], rows=1)
    os.utime(paths[0], (0, 0))
    os.utime(paths[1])
    assert removed(prune(home, ALL, remove=True)) == {("caches", "encodings/machine")}
    assert [path.exists() for path in [*paths, left]] == [True, True, False, False]
    assert reader is not None


def test_ages() -> None:
    assert (parse_age("30d"), parse_age("1d12h"), parse_age("0s")) == (30 * DAY_S, 1.5 * DAY_S, 0)
    for text in ("", "30", "d", "1.5d", "1d x"):
        with pytest.raises(UserError, match="--older-than"):
            parse_age(text)


def test_a_folder_that_is_not_there_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        prune(home, ALL, sweeps=tmp_path / "none")


def test_what_a_group_shared_goes_when_all_its_sweeps_are_old(home: Home, store: str) -> None:
    make_sweep(home, "polyp", days=40)
    young = make_sweep(home, "leaf", days=1)
    group = make_group(home, "polyp", "leaf")
    only = dataclasses.replace(ALL, kinds=frozenset({Kind.checkpoints}))
    prune(home, only, remove=True)
    assert (group / "slots").is_dir()
    at = time.time() - 40 * DAY_S
    os.utime(young / NAME, (at, at))
    assert group.name in {removal.owner for removal in prune(home, only).removals}
    prune(home, only, remove=True)
    assert [path.name for path in group.iterdir()] == ["group.yaml"]
    shown = {removal.owner for removal in prune(home, ALL).removals if removal.kind == Kind.sweeps}
    assert shown == {"polyp", "leaf", group.name}
    prune(home, ALL, remove=True)
    assert not group.exists()
