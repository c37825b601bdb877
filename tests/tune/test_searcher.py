"""What the sampler is told about the ends of trials, what is never trained, and what survives a driver."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from infosam.config import RunConfig
from infosam.errors import UserError
from tune.config import ConstraintConfig, SearchConfig
from tune.events import OBJECTIVE, EpochReported, Event, State, StopReason, TrialEnded, TrialStarted
from tune.footprint import Footprint
from tune.ledger import Ledger
from tune.searcher import OptunaSearcher
from tune.space import Space, parse_distribution
from tune.study_store import check_study, open_study

SPACE = {
    "optim.lr": parse_distribution("optim.lr", {"log_uniform": [1e-4, 1e-2]}),
    "peft.rank": parse_distribution("peft.rank", {"int_uniform": [1, 8]}),
}
CONDITIONAL = {
    "optim.lr": parse_distribution("optim.lr", {"log_uniform": [1e-4, 1e-2]}),
    "peft.kind": parse_distribution("peft.kind", {"choice": ["lora", "adapter"]}),
    "peft.rank": parse_distribution("peft.rank", {"int_uniform": [1, 8], "when": {"peft.kind": "lora"}}),
    "peft.width": parse_distribution("peft.width", {"int_uniform": [1, 64], "when": {"peft.kind": "adapter"}}),
}


class Play:
    """A searcher and the log it follows."""

    def __init__(self, one: OptunaSearcher, ledger: Ledger | None = None) -> None:
        self.one = one
        self.ledger = ledger or Ledger()

    def tell(self, event: Event) -> None:
        self.ledger(event)
        self.one(event)

    def start(self) -> dict[str, Any]:
        suggestion = self.one.suggest("an id of Tune")
        assert isinstance(suggestion, dict)
        self.tell(TrialStarted(trial_id=suggestion["trial"], values=suggestion["values"]))
        return suggestion

    def report(self, trial_id: str, epoch: int, **values: float) -> None:
        named = {OBJECTIVE if name == "value" else f"cost/{name}": value for name, value in values.items()}
        self.tell(EpochReported(trial_id=trial_id, epoch=epoch, values=named, checkpoint=None, is_best=True))

    def end(self, trial_id: str, state: State = "FINISHED", reason: StopReason = "completed") -> None:
        self.tell(TrialEnded(trial_id=trial_id, state=state, reason=reason))

    def trial(self, values: list[float], state: State = "FINISHED", reason: StopReason = "completed") -> dict[str, Any]:
        suggestion = self.start()
        for epoch, value in enumerate(values, start=1):
            self.report(suggestion["trial"], epoch, value=value)
        self.end(suggestion["trial"], state, reason)
        return suggestion

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.one.study.trials


def play(journal: Path | None = None, *, space: Space = SPACE, limit: Footprint | None = None, **settings: Any) -> Play:
    return Play(OptunaSearcher(space, SearchConfig.model_validate(settings), "sweep", journal, limit))


def resumed(before: Play, journal: Path | None = None, *, space: Space = SPACE, **settings: Any) -> Play:
    search = SearchConfig.model_validate(settings)
    return Play(OptunaSearcher.resume(space, search, "sweep", journal, before.ledger), before.ledger)


def bounded(**bounds: float) -> Footprint:
    return Footprint(RunConfig(), ConstraintConfig.model_validate(bounds))


def by_id(one: Play) -> dict[str, FrozenTrial]:
    return {trial.user_attrs["trial_id"]: trial for trial in one.trials if "trial_id" in trial.user_attrs}


def test_a_finished_trial_counts_with_its_best_epoch() -> None:
    one = play()
    one.trial([0.1, 0.6, 0.5])
    (trial,) = one.trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.6)
    assert trial.intermediate_values == {1: 0.1, 2: 0.6, 3: 0.5}


@pytest.mark.parametrize("reason", ["early_stopped", "plateau", "budget", "user"])
def test_a_stopped_trial_is_pruned_with_what_it_reported(reason: StopReason) -> None:
    one = play()
    one.trial([0.1, 0.2], "KILLED", reason)
    (trial,) = one.trials
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.1, 2: 0.2}


def test_failed_trials_fail() -> None:
    one = play()
    one.trial([0.3], "FAILED", "error")
    one.trial([], "FAILED", "error")
    one.trial([float("nan")], "FINISHED", "completed")
    assert [trial.state for trial in one.trials] == [TrialState.FAIL] * 3


def test_an_end_is_told_once_and_trials_of_others_are_ignored() -> None:
    one = play()
    name = one.trial([0.5])["trial"]
    one.end(name)
    one.tell(TrialStarted(trial_id="r0000-s1", values={}))
    one.end("r0000-s1")
    assert [trial.state for trial in one.trials] == [TrialState.COMPLETE]


def test_closing_puts_what_never_started_back_into_the_queue() -> None:
    one = play()
    before = one.one.suggest("an id of Tune")
    one.one.close()
    assert TrialState.RUNNING not in [trial.state for trial in one.trials]
    assert one.one.suggest("another") == before


def test_points_come_first_and_the_rest_of_them_is_sampled() -> None:
    one = play(points=[{"optim.lr": 1e-3, "peft.rank": 4}, {}, {"peft.rank": 2}])
    first, sampled, second = one.start(), one.start(), one.start()
    assert sampled["values"].keys() == first["values"].keys()
    assert first == {"trial": "t0000", "values": {"optim.lr": 1e-3, "peft.rank": 4}}
    assert second["values"]["peft.rank"] == 2
    assert 1e-4 <= second["values"]["optim.lr"] <= 1e-2


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "nsga2"])
@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["plain", "conditional"])
def test_a_seed_repeats_the_search(sampler: str, space: Space) -> None:
    against = {"against": "epoch_seconds"} if sampler == "nsga2" else {}

    def values(seed: int) -> list[Any]:
        one = play(space=space, seed=seed, sampler=sampler, startup_trials=3, **against)
        found = []
        for number in range(8):
            suggestion = one.start()
            one.report(suggestion["trial"], 1, value=0.1 * number, seconds=1.0 + suggestion["values"]["optim.lr"])
            one.end(suggestion["trial"])
            found.append(suggestion["values"])
        return found

    first = values(3)
    assert first == values(3)
    assert first != values(4)
    assert all(set(one) <= set(space) for one in first)


def test_tpe_learns() -> None:
    one = play(seed=0, startup_trials=5)
    ranks = []
    for _ in range(40):
        suggestion = one.start()
        ranks.append(suggestion["values"]["peft.rank"])
        one.report(suggestion["trial"], 1, value=1 - abs(ranks[-1] - 6) / 10)
        one.end(suggestion["trial"])
    assert sum(abs(rank - 6) for rank in ranks[20:]) < sum(abs(rank - 6) for rank in ranks[:20])


def test_two_objectives_are_told_together() -> None:
    one = play(sampler="nsga2", against="adapter_mb", limit=bounded())
    rank = one.trial([0.2, 0.7, 0.6])["values"]["peft.rank"]
    assert one.trials[0].values == [0.7, bounded().sizes({"peft.rank": rank})["adapter_mb"]]
    timed = play(sampler="nsga2", against="epoch_seconds")
    name = timed.start()["trial"]
    timed.report(name, 1, value=0.5, seconds=2.0)
    timed.report(name, 2, value=0.4, seconds=4.0)
    timed.end(name)
    assert timed.trials[0].values == [0.5, 3.0]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "nsga2"])
def test_what_breaks_a_bound_is_never_suggested(sampler: str) -> None:
    bound = bounded().sizes({"peft.kind": "lora", "peft.rank": 3})["adapter_mb"]
    limit = bounded(adapter_mb=bound)
    against = {"against": "adapter_mb"} if sampler == "nsga2" else {}
    one = play(space=CONDITIONAL, limit=limit, sampler=sampler, startup_trials=4, **against)
    for number in range(7):
        assert limit.allows(one.trial([0.1 * number])["values"])
    assert list(by_id(one)) == [f"t{number:04d}" for number in range(7)]
    refused = [trial for trial in one.trials if "trial_id" not in trial.user_attrs]
    assert refused
    assert all(trial.state == TrialState.PRUNED and max(trial.constraints.values()) > 0 for trial in refused)


def test_a_point_that_leaves_the_size_open_is_kept_until_it_fits() -> None:
    limit = bounded(adapter_mb=bounded().sizes({"peft.kind": "adapter", "peft.width": 3})["adapter_mb"])
    one = play(space=CONDITIONAL, limit=limit, points=[{"peft.kind": "adapter"}])
    values = one.start()["values"]
    assert (values["peft.kind"], values["peft.width"] <= 3) == ("adapter", True)


def test_a_search_without_anything_allowed_ends() -> None:
    one = play(limit=bounded(adapter_mb=1e-6), sampler="random")
    assert one.one.suggest("an id of Tune") == "FINISHED"


@pytest.mark.parametrize("kept", ["memory", "journal", "rdb"])
def test_a_resumed_search_goes_on_as_an_undisturbed_one(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFOSAM_STUDY_URL", f"sqlite:///{tmp_path / 'study.db'}")
    journal = tmp_path / "journal" if kept == "journal" else None
    settings: dict[str, Any] = {
        "seed": 1,
        "startup_trials": 2,
        "points": [{"peft.rank": 1}, {"peft.rank": 7}],
        "storage": kept,
    }
    undisturbed = play(**{**settings, "storage": "memory"})
    expected = [undisturbed.trial([0.1 * number, 0.2])["values"] for number in range(8)]

    one = play(journal, **settings)
    found = [one.trial([0.1 * number, 0.2])["values"] for number in range(3)]
    running = one.start()  # the driver dies in the middle of its first epoch
    one = resumed(one, journal, **settings)
    again = one.start()
    assert again == running
    for epoch, value in ((1, 0.1 * 3), (2, 0.2)):
        one.report(again["trial"], epoch, value=value)
    one.end(again["trial"])
    found.append(again["values"])
    found += [one.trial([0.1 * number, 0.2])["values"] for number in range(4, 8)]
    assert found == expected
    assert [trial.state for trial in one.trials] == [TrialState.COMPLETE] * 8
    assert sorted(by_id(one)) == [f"t{number:04d}" for number in range(8)]


@pytest.mark.parametrize("kept", ["memory", "journal"])
def test_the_study_is_brought_to_the_state_of_the_log(kept: str, tmp_path: Path) -> None:
    journal = tmp_path / "journal" if kept == "journal" else None
    one = play(journal, points=[{"peft.rank": rank} for rank in range(1, 7)])
    ended, stopped, interrupted, known = (one.start() for _ in range(4))
    unknown = one.one.suggest("handed out, but the driver dies before it starts")
    one.report(ended["trial"], 1, value=0.4)
    one.report(stopped["trial"], 1, value=0.1)
    one.report(known["trial"], 1, value=0.3)
    one.report(interrupted["trial"], 1, value=0.2)
    one.end(interrupted["trial"], "KILLED", "user")
    # The log has these two, the study does not.
    one.ledger(TrialEnded(trial_id=ended["trial"], state="FINISHED", reason="completed"))
    one.ledger(TrialEnded(trial_id=stopped["trial"], state="KILLED", reason="early_stopped"))

    one = resumed(one, journal, points=[{"peft.rank": rank} for rank in range(1, 7)])
    assert by_id(one)[ended["trial"]].value == 0.4
    assert by_id(one)[stopped["trial"]].state == TrialState.PRUNED
    again = [one.start() for _ in range(4)]
    assert again[:2] == [interrupted, known]
    assert [trial["values"]["peft.rank"] for trial in again[2:]] == [5, 6]
    assert [trial["trial"] for trial in again[2:]] == ["t0004", "t0005"]
    if journal:
        assert again[2] == unknown
    assert by_id(one)[known["trial"]].intermediate_values == {1: 0.3}
    one.report(known["trial"], 1, value=0.3)  # training repeats the epoch it was in
    one.report(known["trial"], 2, value=0.2)
    one.end(known["trial"])
    assert by_id(one)[known["trial"]].value == 0.3


def test_a_torn_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    one = play(journal)
    one.trial([0.5])
    with journal.open("a") as file:
        file.write('{"op_code": 5, "worker')
    one = resumed(one, journal)
    one.trial([0.6])
    assert [trial.value for trial in resumed(one, journal).trials] == [0.5, 0.6]


@pytest.mark.parametrize("storage", ["journal", "rdb"])
def test_two_sweeps_never_share_a_study(storage: str, tmp_path: Path) -> None:
    url = {"url": f"sqlite:///{tmp_path / 'study.db'}"} if storage == "rdb" else {}
    play(tmp_path / "journal", storage=storage, **url)
    with pytest.raises(UserError, match="already holds a study named 'sweep'"):
        play(tmp_path / "journal", storage=storage, **url)


def test_a_study_of_another_sweep_is_not_taken_up(tmp_path: Path) -> None:
    """Of the same name, from another machine; found before anything is begun, and when the study is opened."""
    search = SearchConfig.model_validate({"storage": "rdb", "url": f"sqlite:///{tmp_path / 'study.db'}"})
    check_study("sweep", search, None)
    assert not (tmp_path / "study.db").exists()
    directions = [StudyDirection.MAXIMIZE]
    open_study("sweep", search, None, directions, owner="9.0", resume=False)
    check_study("sweep", search, "9.0")
    open_study("sweep", search, None, directions, owner="9.0", resume=True)
    with pytest.raises(UserError, match="already holds a study named 'sweep'"):
        check_study("sweep", search, None)
    for refused in (
        lambda: check_study("sweep", search, "8.0"),
        lambda: open_study("sweep", search, None, directions, owner="8.0", resume=True),
    ):
        with pytest.raises(UserError, match="holds a study named 'sweep' of another sweep"):
            refused()


def test_a_database_without_address_is_refused() -> None:
    with pytest.raises(UserError, match="INFOSAM_STUDY_URL"):
        play(storage="rdb")


@pytest.mark.parametrize("url", ["postgresql://me:secret@127.0.0.1:9/studies", "nonsense://me:secret@host/x"])
def test_a_database_that_cannot_be_used_is_refused_without_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFOSAM_STUDY_URL", url)
    with pytest.raises(UserError, match="cannot be used") as caught:
        play(storage="rdb")
    with pytest.raises(UserError, match="cannot be used"):
        check_study("sweep", SearchConfig(storage="rdb"), None)
    assert "secret" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_pickle_of_it_holds_nothing(tmp_path: Path) -> None:
    one = play(storage="rdb", url=f"sqlite:///{tmp_path / 'study.db'}")
    assert b"sqlite" not in pickle.dumps(one.one)
