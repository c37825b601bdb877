"""What the sampler is told about the ends of trials, and what survives a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import DuplicatedStudyError
from optuna.trial import TrialState

from tune.config import SearchConfig
from tune.events import OBJECTIVE
from tune.searcher import OptunaSearcher
from tune.space import parse_distribution
from tune.worker import Failure, Report

SPACE = {
    "optim.lr": parse_distribution("optim.lr", {"log_uniform": [1e-4, 1e-2]}),
    "peft.rank": parse_distribution("peft.rank", {"int_uniform": [1, 8]}),
}


def searcher(journal: Path | None = None, **settings: Any) -> OptunaSearcher:
    return OptunaSearcher(SPACE, SearchConfig.model_validate(settings), study_name="sweep", journal=journal)


def result(epoch: int, value: float, *, completed: bool = False) -> dict[str, Any]:
    report = Report(epoch=epoch, values={OBJECTIVE: value}, checkpoint=None, is_best=True, completed=completed)
    return {"epoch": epoch, OBJECTIVE: value, "report": report}


def run(one: OptunaSearcher, name: str, values: list[float], *, completed: bool) -> dict[str, Any]:
    """A trial as Tune tells it: the last result arrives with the end only."""
    suggestion = one.suggest(name)
    for epoch, value in enumerate(values[:-1], start=1):
        one.on_trial_result(name, result(epoch, value))
    one.on_trial_complete(name, result(len(values), values[-1], completed=completed))
    return suggestion


def test_a_finished_trial_counts_with_its_best_epoch() -> None:
    one = searcher()
    run(one, "a", [0.1, 0.6, 0.5], completed=True)
    trial = one.study.trials[0]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.6)
    assert trial.intermediate_values == {1: 0.1, 2: 0.6, 3: 0.5}


def test_an_early_stopped_trial_is_pruned_with_what_it_reported() -> None:
    one = searcher()
    run(one, "a", [0.1, 0.2], completed=False)
    trial = one.study.trials[0]
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.1, 2: 0.2}


def test_failed_trials_fail() -> None:
    one = searcher()
    failure = {"report": Failure(error="broke", trace="broke"), "done": True}
    one.suggest("raised")
    one.on_trial_result("raised", result(1, 0.3))
    one.on_trial_complete("raised", failure)
    one.suggest("died")
    one.on_trial_complete("died", error=True)
    one.suggest("silent")
    one.on_trial_complete("silent", {})
    one.suggest("not finite")
    one.on_trial_complete("not finite", result(1, float("nan"), completed=True))
    assert [trial.state for trial in one.study.trials] == [TrialState.FAIL] * 4


def test_closing_leaves_no_trial_running() -> None:
    one = searcher()
    one.suggest("a")
    one.close()
    assert [trial.state for trial in one.study.trials] == [TrialState.FAIL]


def test_points_come_first_and_the_rest_of_them_is_sampled() -> None:
    one = searcher(points=[{"optim.lr": 1e-3, "peft.rank": 4}, {"peft.rank": 2}])
    first, second = one.suggest("a"), one.suggest("b")
    assert first == {"trial": "t0000", "values": {"optim.lr": 1e-3, "peft.rank": 4}}
    assert second["values"]["peft.rank"] == 2
    assert 1e-4 <= second["values"]["optim.lr"] <= 1e-2


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_seed_repeats_the_search(sampler: str) -> None:
    def play(seed: int) -> list[Any]:
        one = searcher(seed=seed, sampler=sampler, startup_trials=2)
        return [run(one, str(number), [0.1, 0.1 * number], completed=True)["values"] for number in range(6)]

    assert play(3) == play(3)
    assert play(3) != play(4)


def test_tpe_learns() -> None:
    one = searcher(seed=0, startup_trials=5)
    ranks = []
    for number in range(40):
        suggestion = one.suggest(str(number))
        rank = suggestion["values"]["peft.rank"]
        ranks.append(rank)
        one.on_trial_complete(str(number), result(1, -abs(rank - 6) / 10, completed=True))
    assert sum(abs(rank - 6) for rank in ranks[20:]) < sum(abs(rank - 6) for rank in ranks[:20])


@pytest.mark.parametrize("kept", ["memory", "journal"])
def test_a_restored_search_goes_on_as_the_old_one_would(kept: str, tmp_path: Path) -> None:
    journals = {name: tmp_path / f"{name}.journal" if kept == "journal" else None for name in ("old", "new")}
    one = searcher(journals["old"], seed=1, startup_trials=2)
    for number in range(3):
        run(one, str(number), [0.1 * number], completed=True)
    running = one.suggest("running")
    one.save(str(tmp_path / "state"))
    other = searcher(journals["new"], seed=99)
    other.restore(str(tmp_path / "state"))
    assert other.suggest("next")["trial"] == "t0004"
    other.on_trial_complete("running", result(1, 0.5, completed=True))
    told = next(trial for trial in other.study.trials if trial.user_attrs["trial_id"] == running["trial"])
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.5)


def test_two_sweeps_never_share_a_study(tmp_path: Path) -> None:
    searcher(tmp_path / "journal")
    with pytest.raises(DuplicatedStudyError):
        searcher(tmp_path / "journal")
