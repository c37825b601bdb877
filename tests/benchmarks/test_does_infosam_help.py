"""The comparison of arms in its quick form, what it trains and when it looks at test, and its arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from arm_gains import ArmScores, gain_interval
from arm_runs import ArmRuns, Domain, Scored
from arm_study import Study
from compared_arms import ARMS, PAIRS, QUESTION, Job, Pair, config_of
from does_infosam_help import recompute
from results_file import newest
from shared_sets import imported, made_up

from infosam.bootstrap import mean_interval
from infosam.errors import ConfigError
from infosam.training import train

Quick = Callable[..., dict[str, Any]]
COMMON = {"model": {"image_px": 64}, "train": {"epochs": 2, "device": "cpu"}}


@pytest.mark.slow
def test_all_arms_are_compared_and_published(quick: Quick, tmp_path: Path) -> None:
    found = quick("does_infosam_help", "--out", str(tmp_path))
    assert {*found["domains"]["spores"]} == {*ARMS, "zero_shot", "trivial"}
    assert {*found["gains"]} == {str(pair) for pair in PAIRS}
    for gains in found["gains"].values():
        assert gains["box"]["spores"]["seeds"] == 2
        assert gains["none"]["spores"]["low"] <= gains["none"]["spores"]["mean"] <= gains["none"]["spores"]["high"]
    published = json.loads(next(tmp_path.glob("*-does-infosam-help.json")).read_text())
    assert published["figures"] == found
    scores = pq.read_table(tmp_path / "does-infosam-help.parquet")
    assert scores.num_rows == len(ARMS) * 2 * 2 * 6  # seeds, prompts, images
    texts = {name for name in scores.column_names if str(scores.schema.field(name).type) == "string"}
    assert texts == {"domain", "arm", "prompt", "commit", "machine"}  # no names of images
    assert pq.read_table(tmp_path / "does-infosam-help-epochs.parquet").num_rows == found["runs"]
    assert "<svg" in (tmp_path / "does-infosam-help.svg").read_text()
    curves = found["information"]["spores"]
    assert {*curves} == {"lora+infosam", "adapter+infosam"}
    assert all(0 <= bits <= 2 for curve in curves["lora+infosam"].values() for bits in curve)  # batches of 4
    assert "<svg" in (tmp_path / "does-infosam-help-lora-infosam-bits.svg").read_text()


def test_missing_data_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="polyp is missing"):
        imported(tmp_path / "nowhere", ["polyp"], tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.fixture(scope="module")
def spores(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    folder = made_up(tmp_path_factory.mktemp("spores"), image_px=64, test=6)["spores"]
    return Domain("spores", folder, config_of(Job("spores", "lora", 1e-3, 0), COMMON).model)


def study_of(domain: Domain, folder: Path, **settings: Any) -> Study:
    known = {"common": COMMON, "overrides": [], "rates": [1e-4, 1e-3]}
    plain: dict[str, Any] = {"arms": ["decoder"], "epochs": 2, "seeds": 2, "most_seeds": 2}
    runs = ArmRuns(folder, known)
    return Study(domains=[domain], rates=known["rates"], settings=known, runs=runs, **{**plain, **settings})  # type: ignore[arg-type]


def test_a_study_goes_on_and_test_is_scored_for_the_chosen_rate_only(spores: Domain, tmp_path: Path) -> None:
    study = study_of(spores, tmp_path)
    assert len(study.left()) == 3
    answers = iter([False, True])
    assert not study.carry_out(lambda: next(answers))  # one run, then time is up
    assert len(study.left()) == 2
    first = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*.json")}
    assert len(first) == 1
    assert not (tmp_path / "test").exists()

    study = study_of(spores, tmp_path)
    assert study.carry_out(lambda: False)
    assert study.left() == []
    assert {file: file.stat().st_mtime_ns for file in first} == first
    tried = [study.runs.trained(Job("spores", "decoder", rate, 0)) for rate in study.rates]
    best = max((run for run in tried if run), key=lambda run: run.score).job.rate
    tested = study.scores().runs("spores", "decoder")
    assert [(run.job.rate, run.job.seed) for run in tested] == [(best, 0), (best, 1)]
    assert not [file for file in (tmp_path / "checkpoints").rglob("*") if file.is_file()]
    assert study.carry_out(lambda: pytest.fail("nothing is left to train"))


def test_a_run_that_was_killed_keeps_its_first_epochs(spores: Domain, tmp_path: Path) -> None:
    job = Job("spores", "decoder", 1e-3, 0)
    killed = train(config_of(job, COMMON), spores.materials, checkpoint_dir=tmp_path / "checkpoints" / job.name)
    first = next(killed)
    killed.close()
    run = study_of(spores, tmp_path).runs.train(job, spores)
    assert [epoch["val/dice"] for epoch in run.history][:1] == [first.values["val/dice"]]
    assert len(run.history) == 2


def test_a_run_that_diverges_is_not_chosen(spores: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infosam.errors import Diverged

    def diverging(config: Any, *others: Any, **more: Any) -> Any:
        if config.optim.lr > 5e-4:
            raise Diverged("the loss is nan")
        return train(config, *others, **more)

    monkeypatch.setattr("arm_runs.train", diverging)
    study = study_of(spores, tmp_path, seeds=1, most_seeds=1)
    assert study.carry_out(lambda: False)
    assert [run.job.rate for run in study.scores().runs("spores", "decoder")] == [1e-4]
    assert study_of(spores, tmp_path).left() == [Job("spores", "decoder", 1e-4, 1)]


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    ArmRuns(tmp_path, {"common": COMMON, "overrides": [], "rates": [1e-3]})
    with pytest.raises(SystemExit, match="--work"):
        ArmRuns(tmp_path, {"common": COMMON, "overrides": [], "rates": [2e-3]})


def test_runs_that_would_be_the_same_are_taken_over_with_their_scores(spores: Domain, tmp_path: Path) -> None:
    arms = ["decoder", "lora+infosam"]
    assert study_of(spores, tmp_path / "first", arms=arms, seeds=1, most_seeds=1).carry_out(lambda: False)
    settings = {"common": COMMON, "overrides": ["info.compression=0.1"], "rates": [1e-4, 1e-3]}
    runs = ArmRuns(tmp_path / "second", settings)
    taken = runs.take_over(tmp_path / "first")
    assert {job.arm for job in taken} == {"decoder"}
    assert len(taken) == 2
    assert sum(runs.tested(job) is not None for job in taken) == 1
    assert runs.take_over(tmp_path / "first") == []
    with pytest.raises(SystemExit, match="no comparison was made there"):
        runs.take_over(tmp_path / "third")


def scored(arm: str, seed: int, dice: list[float], domain: str) -> Scored:
    images = [{"dice": one, "iou": one / 2} for one in dice]
    scores = {"box": images, "none": images}
    return Scored(job=Job(domain, arm, 1e-3, seed), epoch=1, scores=scores, commit="c", machine="m")


def test_gains_are_per_image_over_the_seeds_that_both_have() -> None:
    scores = ArmScores(
        [
            scored("lora", 0, [0.5, 0.6, 0.7], "dots"),
            scored("lora", 1, [0.5, 0.6, 0.7], "dots"),
            scored("lora+infosam", 0, [0.6, 0.6, 0.7], "dots"),
            scored("lora+infosam", 1, [0.5, 0.8, 0.7], "dots"),
            scored("lora+infosam", 2, [0.0, 0.0, 0.0], "dots"),  # its partner is missing
        ]
    )
    gain = scores.gain(Pair("lora+infosam", "lora"), "box", "dots")
    assert gain is not None
    assert gain.interval.mean == pytest.approx(np.mean([0.05, 0.1, 0.0]))
    assert gain.interval.images == 3
    assert gain.by_seed == pytest.approx([0.1 / 3, 0.2 / 3])
    assert scores.gain(Pair("adapter", "lora"), "box", "dots") is None
    assert scores.means("dots", "lora")["test/box/iou"] == pytest.approx(0.3)


def test_intervals_grow_with_the_luck_of_training() -> None:
    images = np.random.default_rng(1).normal(0.1, 0.02, 40)
    steady = np.array([images, images, images])
    shaken = steady + np.array([[-0.1], [0.0], [0.1]])
    calm, wild = gain_interval([steady]), gain_interval([shaken])
    assert calm.mean == pytest.approx(images.mean())
    assert wild.mean == pytest.approx(images.mean())
    by_images = mean_interval(images)
    assert (calm.low, calm.high) == pytest.approx((by_images.low, by_images.high), abs=1e-3)
    assert calm.excludes_zero
    assert not wild.excludes_zero
    assert gain_interval([shaken]) == wild  # the same every time


def test_seeds_are_drawn_with_their_whole_variance() -> None:
    seeds = np.array([[-0.1], [0.0], [0.1]]) * np.ones((1, 8))  # images do not differ
    interval = gain_interval([seeds] * 40)  # of many domains the mean is nearly normal
    expected = 1.96 * 0.1 / np.sqrt(3 * 40)
    assert interval.high == pytest.approx(expected, rel=0.1)
    assert gain_interval([np.array([[0.3]])]).images == 1
    assert np.isnan(gain_interval([np.array([[0.3]])]).low)


def test_published_gains_can_be_made_anew_from_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = [
        scored(arm, seed, rng.uniform(size=5).tolist(), domain)
        for domain in ("dots", "rings") for arm in QUESTION[0] for seed in range(2)
    ]  # fmt: skip
    scores = ArmScores(runs)
    scores.write(tmp_path / "does-infosam-help.parquet", {})
    pair = str(QUESTION[0])
    old = {"command": "python x", "at": "2026-01-01T10:00:00", "device": "CPU", "commit": "abc"}
    figures = {"gains": {pair: {"box": {}}}, "domains": {"dots": {}}}
    (tmp_path / "2026-01-01-does-infosam-help.json").write_text(json.dumps({**old, "figures": figures}))
    made = recompute(tmp_path)["does-infosam-help"]
    expected = scores.pooled(QUESTION[0], "none")
    assert expected is not None
    assert made["gains"][pair]["none"]["pooled"] == expected.figures()
    assert made["domains"] == figures["domains"]
    for _ in range(2):  # a second time it still knows where the runs come from
        published = newest(tmp_path, "does-infosam-help")
        assert published is not None
        assert published["runs"] == {"command": "python x", "at": old["at"], "device": "CPU", "commits": ["c"]}
        recompute(tmp_path)
    assert "<svg" in (tmp_path / "does-infosam-help.svg").read_text()


def test_pooled_gains_count_each_image_once() -> None:
    pair = Pair("lora+infosam", "lora")
    scores = ArmScores(
        [
            scored("lora", 0, [0.5, 0.5, 0.5], "dots"),
            scored("lora+infosam", 0, [0.6, 0.9, 0.3], "dots"),
            scored("lora", 0, [0.5], "rings"),
            scored("lora+infosam", 0, [0.1], "rings"),
        ]
    )
    gain = scores.pooled(pair, "none")
    assert gain is not None
    assert gain.interval.mean == pytest.approx((3 * 0.1 - 0.4) / 4)
    assert gain.interval.images == 4
    assert not gain.decided


def test_undecided_pairs_get_more_seeds(spores: Domain, tmp_path: Path) -> None:
    arms = [*QUESTION[0]]
    study = study_of(spores, tmp_path, arms=arms, seeds=1, most_seeds=2)
    assert study.carry_out(lambda: False)
    gain = study.scores().gain(QUESTION[0], "box", "spores")
    assert gain is not None
    first = ArmScores(run for arm in arms for run in study.scores().runs("spores", arm)[:1])
    known = first.gain(QUESTION[0], "box", "spores")
    assert known is not None
    assert len(gain.by_seed) == (1 if known.decided else 2)


def test_arms_differ_in_what_they_are_named_for() -> None:
    configs = {arm: config_of(Job("dots", arm, 1e-3, 7), COMMON) for arm in ARMS}
    assert {config.train.seed for config in configs.values()} == {7}
    assert {config.optim.lr for config in configs.values()} == {1e-3}
    assert {arm for arm, config in configs.items() if config.info.relational} == {"lora+infosam", "adapter+infosam"}
    assert {arm for arm, config in configs.items() if config.info.features} == {"lora+features", "adapter+features"}
    for pair in QUESTION:
        ours, theirs = (configs[arm].model_copy(update={"info": None}) for arm in pair)
        assert ours == theirs


def test_settings_of_the_information_terms_leave_other_arms_alone() -> None:
    changes = ["info.distillation=5", "train.batch_size=8"]
    with_terms, without = (config_of(Job("dots", arm, 1e-3, 0), COMMON, changes) for arm in QUESTION[0])
    assert (with_terms.info.distillation, without.info.distillation) == (5, 0)
    assert (with_terms.train.batch_size, without.train.batch_size) == (8, 8)
    with pytest.raises(ConfigError, match="batch_sise"):
        config_of(Job("dots", "lora", 1e-3, 0), COMMON, ["train.batch_sise=8"])
