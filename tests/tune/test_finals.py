"""What is repeated after a search, which run stands for the winner, and what its information terms gave."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console
from scipy.stats import ttest_1samp

from infosam.config import RunConfig
from infosam.errors import ConfigError
from tune.config import FinalConfig, SweepConfig, parse_sweep_config
from tune.events import EpochReported, State, StopReason, TrialEnded, TrialStarted
from tune.finals import Finals, ListedTrial, paired_gain
from tune.finals_report import describe_gain, finals_metrics, finals_note, finals_table
from tune.home import Home
from tune.ledger import Ledger
from tune.results import show_outcome
from tune.runner import run_sweep
from tune.trial_ids import role_of

INFO = {"info.compression": 1.0, "info.distillation": 0.5}


class Played:
    """A ledger that is told of trials as a sweep would."""

    def __init__(self, top: int = 1, seeds: int = 3, twin: bool = True) -> None:
        self.ledger = Ledger()
        self.finals = Finals(FinalConfig(top=top, seeds=seeds, twin=twin), RunConfig(), self.ledger)

    def trial(
        self,
        name: str,
        dice: float,
        values: dict[str, Any] | None = None,
        state: State = "FINISHED",
        reason: StopReason = "completed",
    ) -> None:
        self.ledger(TrialStarted(trial_id=name, values=INFO if values is None else values))
        scores = {"val/dice": dice}
        self.ledger(EpochReported(trial_id=name, epoch=1, values=scores, checkpoint=None, is_best=True))
        self.ledger(TrialEnded(trial_id=name, state=state, reason=reason))

    def fails(self, name: str) -> None:
        self.ledger(TrialStarted(trial_id=name, values=INFO))
        self.ledger(TrialEnded(trial_id=name, state="FAILED", reason="error", error="broke"))


def names(trials: list[ListedTrial]) -> list[str]:
    return [trial.trial_id for trial in trials]


class TestWhatIsRun:
    def test_the_searchs_own_run_is_the_first_seed(self) -> None:
        played = Played(top=2)
        for name, dice in (("t0000", 0.5), ("t0001", 0.8), ("t0002", 0.7)):
            played.trial(name, dice)
        repeats = played.finals.repeats()
        assert names(repeats) == ["r0001-s1", "r0001-s2", "r0002-s1", "r0002-s2"]
        assert [one.values["train.seed"] for one in repeats] == [1, 2, 1, 2]
        assert repeats[0].values.items() >= INFO.items()

    def test_an_early_stopped_run_is_repeated_in_full_length(self) -> None:
        played = Played(seeds=2)
        played.trial("t0000", 0.8, state="KILLED", reason="early_stopped")
        assert names(played.finals.repeats()) == ["r0000-s0", "r0000-s1"]

    def test_a_seed_of_the_configuration_is_counted_from(self) -> None:
        played = Played(seeds=2)
        played.trial("t0000", 0.8, {**INFO, "train.seed": 40})
        assert [one.values["train.seed"] for one in played.finals.repeats()] == [41]

    def test_the_twin_is_the_winner_without_information_terms(self) -> None:
        played = Played(seeds=2)
        played.trial("t0000", 0.8, {"peft.rank": 8, "info": {"compression": 2.0, "distillation": 1.0}})
        played.trial("r0000-s1", 0.7)
        twins = played.finals.twins()
        assert names(twins) == ["w0000-s0", "w0000-s1"]
        assert list(twins[0].values)[-3:] == ["info.compression", "info.distillation", "train.seed"]
        assert twins[0].values["info.compression"] == twins[0].values["info.distillation"] == 0
        assert twins[0].values["peft.rank"] == 8

    def test_a_winner_without_information_terms_has_no_twin(self) -> None:
        played = Played(seeds=1)
        played.trial("t0000", 0.8, {"info.compression": 0.0, "info.distillation": 0.0})
        assert played.finals.twins() == []

    def test_what_was_recorded_is_not_repeated_and_what_was_cut_off_is(self) -> None:
        played = Played(seeds=4)
        played.trial("t0000", 0.8)
        played.trial("r0000-s1", 0.7)
        played.fails("r0000-s2")
        played.trial("r0000-s3", 0.6, state="KILLED", reason="user")
        assert names(played.finals.repeats()) == ["r0000-s3"]

    def test_no_trial_gave_a_score(self) -> None:
        played = Played()
        played.fails("t0000")
        assert played.finals.repeats() == played.finals.twins() == []
        assert played.finals.result() is None


class TestWhatTheySay:
    def test_configurations_are_ranked_by_their_mean_and_the_median_stands_for_the_winner(self) -> None:
        played = Played(top=2)
        played.trial("t0000", 0.90)  # a lucky seed
        played.trial("t0001", 0.80)
        for name, dice in (("r0000-s1", 0.60), ("r0000-s2", 0.62), ("r0001-s1", 0.76), ("r0001-s2", 0.81)):
            played.trial(name, dice)
        result = played.finals.result()
        assert result is not None
        assert [one.origin for one in result.ranking] == ["t0001", "t0000"]
        assert result.winner.mean == pytest.approx(0.79)
        assert result.winner.spread == pytest.approx(np.std([0.80, 0.76, 0.81], ddof=1))
        assert result.challenger.trial_id == "t0001"
        assert result.information_gain is None

    def test_of_an_even_number_the_lower_median_is_taken(self) -> None:
        played = Played(seeds=2)
        played.trial("t0000", 0.8)
        played.trial("r0000-s1", 0.7)
        result = played.finals.result()
        assert result is not None
        assert result.challenger.trial_id == "r0000-s1"

    def test_a_configuration_of_which_a_repeat_failed_comes_last(self) -> None:
        played = Played(top=2, seeds=2)
        played.trial("t0000", 0.9)
        played.trial("t0001", 0.8)
        played.fails("r0000-s1")
        played.trial("r0001-s1", 0.8)
        result = played.finals.result()
        assert result is not None
        assert [(one.origin, one.failed) for one in result.ranking] == [("t0001", 0), ("t0000", 1)]

    def test_the_gain_is_paired_by_seed(self) -> None:
        played = Played()
        for number, (ours, theirs) in enumerate([(0.80, 0.78), (0.82, 0.81), (0.85, 0.82)]):
            played.trial("t0000" if number == 0 else f"r0000-s{number}", ours)
            played.trial(f"w0000-s{number}", theirs)
        result = played.finals.result()
        assert result is not None
        gain = result.information_gain
        assert gain is not None
        expected = ttest_1samp([0.02, 0.01, 0.03], 0).confidence_interval(0.95)
        assert (gain.mean, gain.low, gain.high) == pytest.approx((0.02, expected.low, expected.high))
        assert gain.seeds == 3
        assert "holds 0" in (describe_gain(result) or "")
        assert finals_metrics(result)["delta/information/mean"] == pytest.approx(0.02)
        assert "| twin of t0000 |" in "\n".join(finals_note(result))
        console = Console(record=True, width=160)
        console.print(finals_table(result))
        assert "twin of t0000" in console.export_text()

    def test_a_failed_twin_leaves_its_pair_out(self) -> None:
        played = Played(seeds=2)
        played.trial("t0000", 0.8)
        played.trial("r0000-s1", 0.7)
        played.trial("w0000-s0", 0.75)
        played.fails("w0000-s1")
        result = played.finals.result()
        assert result is not None
        assert result.information_gain == (pytest.approx(0.05), *[pytest.approx(math.nan, nan_ok=True)] * 2, 1)
        assert "one seed only" in (describe_gain(result) or "")
        assert "delta/information/low" not in finals_metrics(result)

    def test_no_pairs_no_gain(self) -> None:
        assert paired_gain([]) is None


def test_one_seed_ranks_nothing_anew(sweep_config: SweepConfig) -> None:
    with pytest.raises(ConfigError, match=r"final: top = 2 needs seeds >= 2"):
        parse_sweep_config(sweep_config.model_dump(mode="json"), ["final.top=2"], source="test")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_with_finals_is_recorded_in_full_and_its_study_holds_the_search_only(
    sweep_config: SweepConfig, home: Home, console: Console
) -> None:
    overrides = ["final={top: 2, seeds: 3, twin: true}", "search.trials=3", "scheduler.kind=none", "search.seed=1"]
    config = parse_sweep_config(sweep_config.model_dump(mode="json"), overrides, source="test")
    outcome = run_sweep(config, home=home, console=console, training="seeded_training")
    assert outcome.finals is not None
    winner = outcome.finals.winner.origin[1:]
    roles = Counter(role_of(name) for name in outcome.ledger.trials)
    assert roles == {"trial": 3, "repeat": 4, "twin": 3}
    assert outcome.finals.challenger.trial_id == f"r{winner}-s1"  # luck and gain add up to 0.05, 0.04 and 0.03
    assert outcome.champion is outcome.finals.challenger
    assert outcome.seed == 1
    gain = outcome.finals.information_gain
    assert gain is not None
    assert (gain.mean, gain.seeds) == (pytest.approx(0.05), 3)
    assert gain.low > 0
    client = MlflowClient(tracking_uri=home.tracking_uri)
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert Counter(run.data.tags["role"] for run in runs) == {**roles, "sweep": 1}
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if run.data.tags["role"] == "sweep")
    assert "What the information terms gave" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["delta/information/mean"] == pytest.approx(0.05)
    storage = JournalStorage(JournalFileBackend(str(outcome.folder / "study.journal")))
    assert len(optuna.load_study(study_name=outcome.sweep_id, storage=storage).trials) == 3
    show_outcome(console, outcome)
    assert "Information terms: +0.0500" in console.export_text()
