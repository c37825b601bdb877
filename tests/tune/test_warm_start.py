"""Points from earlier sweeps: whose, how many, made to fit, and repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infosam.errors import ConfigError
from tune.config import SweepConfig, load_sweep_config, parse_sweep_config
from tune.event_log import NAME, EventLog
from tune.events import OBJECTIVE, EpochReported, SweepStarted, TrialEnded, TrialStarted
from tune.home import Home
from tune.plan import SETTINGS_FILE, make_plan
from tune.warm_start import PAPER, WORST, first_tried, ranked, regrets, warm_started

GOOD = {"peft.kind": "lora", "peft.rank": 8, "info.compression": 2.0, "info.distillation": 0.1, "optim.lr": 1e-3}
SECOND = {"peft.kind": "adapter", "peft.width": 16, "info.compression": 0.0, "optim.lr": 1e-4}


def earlier(folder: Path, name: str, domain: str, trials: list[dict[str, Any]], *, at: float = 1.0) -> None:
    """A sweep that is over: the first trial scored best."""
    (folder / name).mkdir(parents=True)
    log = EventLog(folder / name / NAME)
    started = SweepStarted(
        sweep_id=name, domain=domain, experiment="e", settings="", params={"train.seed": 0}, tags={}, data={},
        zero_shot={}, rungs=(), at=at,
    )  # fmt: skip
    log(started)
    for number, values in enumerate(trials):
        trial_id, score = f"t{number:04d}", {OBJECTIVE: 0.9 - 0.1 * number}
        log(TrialStarted(trial_id=trial_id, values=values))
        log(EpochReported(trial_id=trial_id, epoch=1, values=score, checkpoint=None, is_best=True))
        log(TrialEnded(trial_id=trial_id, state="FINISHED", reason="completed"))
    log.close()


def parse(*overrides: str, **settings: Any) -> SweepConfig:
    return parse_sweep_config({"data": "somewhere", "warm_start": "auto", **settings}, list(overrides), source="test")


def test_the_best_of_other_domains_come_first_and_the_papers_defaults_after_them(tmp_path: Path) -> None:
    earlier(tmp_path, "leaf", "leaf", [GOOD, SECOND])
    earlier(tmp_path, "mine", "disc", [{"optim.lr": 1.1e-3}])
    config, notes = warm_started(parse(), "disc", [tmp_path])
    *found, paper = config.search.points
    assert paper.items() <= PAPER.items()
    assert found == [{}, GOOD, {}, SECOND]  # empty: sampled
    assert config.warm_start == "off"
    assert any("leaf (leaf, val Dice 0.900)" in note for note in notes)
    assert any("paper's defaults" in note for note in notes)


def test_ones_own_points_stay_first_and_a_first_sweep_tries_the_papers_too() -> None:
    shipped = Path("tune/sweeps/default.yaml")
    config = load_sweep_config(shipped, ["warm_start=auto"])
    assert warm_started(load_sweep_config(shipped), "disc", [])[1] == []  # off
    settled, notes = warm_started(config, "disc", [])
    *own, paper = settled.search.points
    assert own == config.search.points
    assert paper.items() <= PAPER.items()
    assert notes == ["Warm start also tries the paper's defaults"]


def test_the_papers_place_is_kept_and_a_sweep_without_any_says_so(tmp_path: Path) -> None:
    earlier(tmp_path, "leaf", "leaf", [GOOD, SECOND])
    one = {"optim.lr": 1e-3}
    config, _ = warm_started(parse(search={"trials": 3, "points": [one]}), "disc", [tmp_path])
    assert config.search.points[:2] == [one, GOOD]
    assert config.search.points[2].items() <= PAPER.items()
    config, _ = warm_started(parse("search.trials=1"), "disc", [tmp_path])
    assert [point.items() <= PAPER.items() for point in config.search.points] == [True]
    config, notes = warm_started(parse(search={"trials": 1, "points": [one]}), "disc", [tmp_path])
    assert (config.search.points, notes) == ([one], ["Warm start has no place: search.points fill all 1 trials"])
    config, notes = warm_started(parse(constraints={"adapter_mb": 0.01}), "disc", [])
    assert config.search.points == []
    assert any("leaves out the paper's defaults" in note and "adapter_mb" in note for note in notes)


def test_a_space_without_what_the_paper_chose_gets_no_point_of_it() -> None:
    rates: dict[str, Any] = {"optim.lr": {"log_uniform": [1e-4, 1e-3]}}
    assert warm_started(parse(space=rates), "disc", [])[0].search.points == []
    ranks = {**rates, "peft.rank": {"int_uniform": [8, 16]}}
    plain = parse(space=ranks, run={"info": {"compression": 0.0}})
    assert warm_started(plain, "disc", [])[0].search.points == []
    config, notes = warm_started(parse(space=ranks), "disc", [])
    assert config.search.points == [{"peft.rank": 8, "optim.lr": 2e-4}]
    assert notes == ["Warm start also tries the paper's defaults, changed to fit: peft.rank 4 -> 8"]


def test_an_own_point_that_is_the_papers_is_not_repeated(tmp_path: Path) -> None:
    earlier(tmp_path, "leaf", "leaf", [GOOD])
    own = {"peft.kind": "lora", "peft.rank": 4, "info.compression": 1.0, "info.distillation": 0.5, "optim.lr": 5e-4}
    config, notes = warm_started(parse(search={"points": [own]}), "disc", [tmp_path])
    assert config.search.points == [own, {}, GOOD]
    assert not any("paper" in note for note in notes)


def test_the_newest_sweep_of_each_domain_counts_and_only_some_trials_are_taken(tmp_path: Path) -> None:
    earlier(tmp_path, "old", "leaf", [SECOND], at=1)
    earlier(tmp_path, "new", "leaf", [GOOD], at=2)
    earlier(tmp_path, "road", "road", [{**GOOD, "peft.rank": 3}, {**GOOD, "peft.rank": 5}], at=3)
    config, _ = warm_started(parse("search.trials=8"), "disc", [tmp_path])
    assert config.search.points[:-1] == [{}, {**GOOD, "peft.rank": 3}, {}, GOOD]


def test_what_did_well_in_all_domains_comes_before_the_best_of_one(tmp_path: Path) -> None:
    ones = [{**GOOD, "peft.rank": rank} for rank in (2, 3)]
    worse = [{**SECOND, "peft.width": width} for width in (8, 9, 10, 11, 12)]
    earlier(tmp_path, "leaf", "leaf", [ones[0], GOOD, *worse])
    earlier(tmp_path, "road", "road", [ones[1], GOOD, *worse])
    config, notes = warm_started(parse(), "disc", [tmp_path])
    found = [point for point in config.search.points if point]
    assert found[0] == GOOD
    assert {point["peft.rank"] for point in found[1:3]} == {2, 3}
    assert "leaf (leaf, val Dice 0.800)" in notes[0]


def test_domains_have_the_same_say_however_far_apart_their_scores_are() -> None:
    wide = {"a": 0.9, "b": 0.5, "c": 0.4, "d": 0.1}
    narrow = {"a": 0.900, "b": 0.901, "c": 0.899, "d": 0.898}
    assert regrets(wide)["d"] == pytest.approx(min(WORST, 0.8 / 0.45))
    assert regrets(narrow)["a"] == pytest.approx(0.001 / 0.0015)
    assert regrets({"a": 0.5, "b": 0.5, "c": 0.1}) == {"a": 0.0, "b": 0.0, "c": WORST}
    assert regrets({}) == {}
    assert ranked([wide, narrow])[0] == "a"
    assert ranked([{"a": 0.9, "b": 0.8, "c": 0.1}, {"d": 0.7}, {}]) == ["a", "d", "b", "c"]


def test_sampled_trials_stand_between_what_was_found_while_there_is_room() -> None:
    own, found, paper = [{"a": 0}], [{"a": 1}, {"a": 2}], {"a": 3}
    assert first_tried(9, own, found, paper) == [{"a": 0}, {}, {"a": 1}, {}, {"a": 2}, {"a": 3}]
    assert first_tried(5, own, found, paper) == [{"a": 0}, {}, {"a": 1}, {"a": 2}, {"a": 3}]
    assert first_tried(3, own, found, None) == [{"a": 0}, {"a": 1}, {"a": 2}]


def test_no_room_means_no_warm_start(tmp_path: Path) -> None:
    earlier(tmp_path, "leaf", "leaf", [GOOD])
    fixed = [{"optim.lr": 1e-3}, {"optim.lr": 2e-4}]
    config, notes = warm_started(parse(search={"trials": 2, "points": fixed}), "disc", [tmp_path])
    assert config.search.points == fixed
    assert notes == ["Warm start has no place: search.points fill all 2 trials"]


@pytest.mark.parametrize(
    ("values", "expected", "words"),
    [
        ({"peft.kind": "lora", "peft.rank": 99}, {"peft.kind": "lora", "peft.rank": 16}, "peft.rank 99 -> 16"),
        ({"optim.lr": 1e-6}, {"optim.lr": 5e-5}, "optim.lr 1e-06 -> 5e-05"),
        ({"info.compression": 0.02}, {"info.compression": 0.03}, "info.compression 0.02 -> 0.03"),
        ({"info.compression": 0.001}, {"info.compression": 0.0}, "info.compression 0.001 -> 0"),
        ({"peft.kind": "dora", "peft.rank": 4, "optim.lr": 1e-3}, {"optim.lr": 1e-3}, "peft.kind dora left open"),
    ],
)
def test_values_are_made_to_fit_with_a_word(
    tmp_path: Path, values: dict[str, Any], expected: dict[str, Any], words: str
) -> None:
    earlier(tmp_path, "leaf", "leaf", [values])
    config, notes = warm_started(parse(), "disc", [tmp_path])
    assert config.search.points[1] == expected
    assert any(words in note for note in notes)


def test_what_breaks_a_constraint_is_left_out_with_a_word(tmp_path: Path) -> None:
    earlier(tmp_path, "leaf", "leaf", [{**GOOD, "peft.rank": 16}, {**GOOD, "peft.rank": 2}])
    config, notes = warm_started(parse(constraints={"adapter_mb": 0.05}), "disc", [tmp_path])
    assert [point["peft.rank"] for point in config.search.points if point] == [2, 4]
    assert any("leaves out leaf" in note and "adapter_mb" in note for note in notes)


def test_sweeps_can_be_named(tmp_path: Path) -> None:
    earlier(tmp_path, "mine", "disc", [GOOD])
    config, _ = warm_started(parse(warm_start=["mine"]), "disc", [tmp_path])
    assert GOOD in config.search.points
    with pytest.raises(ConfigError, match=r"no sweep yours to take from; there are mine"):
        warm_started(parse(warm_start=["yours"]), "disc", [tmp_path])
    assert warm_started(parse(warm_start="off"), "leaf", [tmp_path])[1] == []


def test_a_damaged_log_is_passed_over_with_a_word(tmp_path: Path) -> None:
    earlier(tmp_path, "leaf", "leaf", [GOOD])
    earlier(tmp_path, "road", "road", [SECOND])
    path = tmp_path / "leaf" / NAME
    path.write_bytes(path.read_bytes().replace(b"0.9", b"0.8"))
    config, notes = warm_started(parse(), "disc", [tmp_path])
    assert SECOND in config.search.points
    assert GOOD not in config.search.points
    assert any("passes over leaf" in note for note in notes)


def test_the_file_of_a_warm_started_sweep_repeats_it(dataset: Path, home: Home) -> None:
    earlier(home.sweeps, "leaf", "leaf", [GOOD])
    plan = make_plan(parse(f"data={dataset}"), home, "tune.noop")
    assert GOOD in plan.config.search.points
    assert plan.notes
    earlier(home.sweeps, "road", "road", [SECOND])
    written = load_sweep_config(plan.folder / SETTINGS_FILE)
    again = make_plan(written, home, "tune.noop")
    assert again.config.search == plan.config.search
    assert yaml.safe_load((again.folder / SETTINGS_FILE).read_text())["warm_start"] == "off"
