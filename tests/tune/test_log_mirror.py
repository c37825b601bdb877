"""What a sweep leaves in its bucket, and going on from there on a machine that has nothing else of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from infosam.errors import UserError
from tune.bucket import Bucket
from tune.config import SweepConfig, parse_sweep_config
from tune.event_log import NAME, EventLog, read_events
from tune.events import OBJECTIVE, EpochReported, Event, ScoredOnTest, TrialStarted
from tune.home import Home
from tune.ledger import Ledger
from tune.log_mirror import PART_BYTES, LogMirror, recover
from tune.mirror import push
from tune.plan import SweepPlan, make_plan
from tune.resume import reopen
from tune.sweep_facts import sweep_started


@pytest.fixture
def plan(sweep_config: SweepConfig, home: Home, tmp_path: Path) -> SweepPlan:
    """A sweep with a bucket, before its first event."""
    settings = sweep_config.model_dump(mode="json")
    mirror = f"resources.mirror=file://{tmp_path / 'bucket'}"
    return make_plan(parse_sweep_config(settings, [mirror], source="test"), home, "tune.noop")


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """Of the machine that takes the place of a lost one."""
    return Home(folder=tmp_path / "other")


def run(plan: SweepPlan, events: Sequence[Event], warn: Callable[[str], None] = pytest.fail) -> None:
    """A driver that dies after these events."""
    assert plan.mirror is not None
    with contextlib.closing(EventLog(plan.folder / NAME)) as log:
        mirror = LogMirror(Bucket(plan.mirror, pause=lambda seconds: None), log.path, warn=warn)
        for event in events:
            mirror(event)
            log(event)


def begin(plan: SweepPlan) -> Event:
    return sweep_started(plan, zero_shot={}, base_sha256="b" * 64)


def epochs(trial_id: str, count: int, first: int = 1) -> list[Event]:
    return [
        EpochReported(trial_id=trial_id, epoch=epoch, values={OBJECTIVE: 0.5}, checkpoint=None, is_best=False)
        for epoch in range(first, first + count)
    ]


def events_of(folder: Path) -> list[Event]:
    return [event for event, _ in read_events(folder / NAME)]


START = TrialStarted(trial_id="t0000", values={"optim.lr": 1e-3})


def test_a_sweep_comes_back_as_it_was(plan: SweepPlan, other: Home) -> None:
    run(plan, [begin(plan), START, *epochs("t0000", 3)])
    assert plan.mirror is not None
    folder = recover(f"{plan.mirror}/", other)
    assert folder == other.sweeps / plan.sweep_id
    assert (folder / NAME).read_bytes() == (plan.folder / NAME).read_bytes()
    again = reopen(folder, Ledger.replay(folder / NAME), other, training="tune.noop")
    assert again.config == plan.config
    assert again.mirror == plan.mirror


def test_a_long_log_is_sent_in_parts_and_by_all_its_drivers(plan: SweepPlan, other: Home) -> None:
    """Full parts are not sent again; those that follow are as the last driver wrote them."""
    assert plan.mirror is not None
    bucket = Bucket(plan.mirror)
    many = 2 * PART_BYTES // 150
    run(plan, [begin(plan), START, *epochs("t0000", many)])
    parts = {path: path.stat().st_mtime_ns for path in (_folder_of(bucket) / "log").iterdir()}
    assert len(parts) > 2
    run(plan, epochs("t0000", many, first=many + 1))
    unchanged = [path for path, at in parts.items() if path.stat().st_mtime_ns == at]
    assert len(unchanged) == len(parts) - 1
    assert events_of(recover(plan.mirror, other)) == events_of(plan.folder)


def test_the_log_is_right_where_both_differ(plan: SweepPlan, other: Home) -> None:
    """The bucket hears first; and a log may lose what its machine had not written down when its power went."""
    assert plan.mirror is not None
    run(plan, [begin(plan), START, *epochs("t0000", 3 * PART_BYTES // 150)])
    content = (plan.folder / NAME).read_bytes()
    kept = content[: content.rindex(b"\n", 0, PART_BYTES // 2) + 1]
    (plan.folder / NAME).write_bytes(kept)
    run(plan, epochs("t0000", 2, first=100_000))
    assert events_of(recover(plan.mirror, other)) == events_of(plan.folder)
    assert len(list((_folder_of(Bucket(plan.mirror)) / "log").iterdir())) == 1


def test_a_bucket_that_takes_nothing_is_told_of_once_and_gets_all_of_it_later(plan: SweepPlan, other: Home) -> None:
    assert plan.mirror is not None
    said: list[str] = []
    run(plan, [begin(plan)])
    parts = _folder_of(Bucket(plan.mirror)) / "log"
    with contextlib.closing(EventLog(plan.folder / NAME)) as log:
        mirror = LogMirror(Bucket(plan.mirror, pause=lambda seconds: None), log.path, warn=said.append)
        aside = parts.rename(parts.with_name("aside"))
        parts.write_text("in the way")
        for event in (START, *epochs("t0000", 2)):
            mirror(event)
            log(event)
        assert len(said) == 1
        assert "takes nothing" in said[0]
        parts.unlink()
        aside.rename(parts)
        for event in epochs("t0000", 1, first=3):
            mirror(event)
            log(event)
    assert len(said) == 1
    assert events_of(recover(plan.mirror, other)) == events_of(plan.folder)


def test_a_trial_that_the_log_does_not_know_is_forgotten(plan: SweepPlan, other: Home, tmp_path: Path) -> None:
    """Its id will be given to another, which must not go on from its checkpoint."""
    assert plan.mirror is not None
    run(plan, [begin(plan), START])
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "state").write_text("of an epoch")
    for trial_id in ("t0000", "t0001"):
        push(tmp_path / "trained", Bucket(f"{plan.mirror}/{trial_id}"), 1)
    recover(plan.mirror, other)
    assert Bucket(f"{plan.mirror}/t0000").read("checkpoint.json") is not None
    assert Bucket(f"{plan.mirror}/t0001").read("checkpoint.json") is None


def test_scores_on_test_come_back_and_are_not_made_again(plan: SweepPlan, other: Home) -> None:
    assert plan.mirror is not None
    scored = plan.folder / "trials" / "t0000"
    (scored / "bundle").mkdir(parents=True)
    (scored / "bundle" / "card.json").write_text("{}")
    (scored / "test.json").write_text("scores")
    run(plan, [begin(plan), START, ScoredOnTest(trial_id="t0000")])
    folder = recover(plan.mirror, other)
    assert (folder / "trials" / "t0000" / "test.json").read_text() == "scores"
    assert (folder / "trials" / "t0000" / "bundle" / "card.json").is_file()


def test_what_is_there_is_kept(plan: SweepPlan, home: Home) -> None:
    assert plan.mirror is not None
    run(plan, [begin(plan)])
    before = (plan.folder / NAME).read_bytes()
    with pytest.raises(UserError, match=r"is there already; go on with it by --resume "):
        recover(plan.mirror, home)
    assert (plan.folder / NAME).read_bytes() == before
    assert [path.name for path in home.sweeps.iterdir()] == [plan.sweep_id]


def test_no_sweep_there(plan: SweepPlan, other: Home) -> None:
    assert plan.mirror is not None
    with pytest.raises(UserError, match=r"holds no sweep; name its folder below resources\.mirror"):
        recover(plan.mirror, other)


def _folder_of(bucket: Bucket) -> Path:
    return Path(bucket.uri.removeprefix("file://"))
