"""What tpe learns from when a sweep has had many trials."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune import samplers
from tune.config import SearchConfig

SEARCH = SearchConfig(trials=1000, startup_trials=3)
RATE = optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
KIND = optuna.distributions.CategoricalDistribution(["lora", "adapter"])
RANK = optuna.distributions.IntDistribution(2, 16)  # of lora only: a setting that tpe draws on its own


def trials(count: int) -> list[FrozenTrial]:
    """Trials with random values, every other one stopped early."""
    drawn = random.Random(0)
    made = []
    for number in range(count):
        kind = drawn.choice(KIND.choices)
        score = drawn.random()
        made.append(
            create_trial(
                state=TrialState.PRUNED if number % 2 else TrialState.COMPLETE,
                value=None if number % 2 else score,
                intermediate_values={2: score},
                params={"lr": drawn.uniform(1e-4, 1e-2), "kind": kind, **({"rank": 4} if kind == "lora" else {})},
                distributions={"lr": RATE, "kind": KIND, **({"rank": RANK} if kind == "lora" else {})},
            )
        )
    return made


def drawn_after(past: list[FrozenTrial], sampler: optuna.samplers.BaseSampler) -> dict[str, object]:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(past)
    trial = study.ask()
    trial.suggest_float("lr", RATE.low, RATE.high, log=True)
    trial.suggest_categorical("kind", KIND.choices)
    trial.suggest_int("rank", RANK.low, RANK.high)
    return dict(trial.params)


@pytest.mark.parametrize("number", range(3))
def test_tpe_is_optunas_own_as_long_as_it_remembers_all(number: int) -> None:
    past = trials(40)
    stock = TPESampler(seed=samplers._seed(0, number, 0), n_startup_trials=3, constant_liar=True)
    assert drawn_after(past, samplers.make_sampler(SEARCH, number)) == drawn_after(past, stock)


def test_tpe_draws_as_if_the_trials_it_forgot_had_never_been(monkeypatch: pytest.MonkeyPatch) -> None:
    past = trials(200)
    everything = drawn_after(past, samplers.make_sampler(SEARCH, 0))
    monkeypatch.setattr(samplers, "MEMORY", 60)
    best = sorted(past[::2], key=lambda trial: -trial.values[0])[: samplers.BEST]
    newest = [trial for trial in past if trial not in best][-(60 - samplers.BEST) :]
    kept = [trial for trial in past if trial in best or trial in newest]
    assert len(kept) == 60
    bounded = drawn_after(past, samplers.make_sampler(SEARCH, 0))
    assert bounded == drawn_after(kept, samplers.make_sampler(SEARCH, 0))
    assert bounded != everything


def test_what_is_kept_from_trial_to_trial_is_what_a_new_look_would_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "MEMORY", 30)
    monkeypatch.setattr(samplers, "BEST", 5)
    drawn = random.Random(1)
    study = optuna.create_study(direction="maximize")
    kept, under_way = samplers.Recollection(), []
    for _ in range(150):
        under_way.append(study.ask())
        while len(under_way) > drawn.randint(1, 8):  # they end in any order
            ended = under_way.pop(drawn.randrange(len(under_way)))
            state = drawn.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
            study.tell(ended, round(drawn.random(), 1) if state == TrialState.COMPLETE else None, state=state)
        found = study.get_trials(deepcopy=False)
        assert kept.of(found) == samplers.Recollection().of(found)
    seen = samplers.Recollection().of(found)
    best = sorted((one for one in found if one.state == TrialState.COMPLETE), key=lambda one: -one.values[0])[:5]
    assert len(seen) == 30 + len(under_way)
    assert all(one in seen for one in best)


def test_a_kept_recollection_draws_what_a_new_one_draws() -> None:
    past, recollection = trials(300), samplers.Recollection()
    first = drawn_after(past[:280], samplers.make_sampler(SEARCH, 0, 0, recollection))
    assert first == drawn_after(past[:280], samplers.make_sampler(SEARCH, 0))
