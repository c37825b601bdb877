"""`--once NAME` of tune/sweep.py: a job that is run again goes on, and only with the sweep it began."""

from __future__ import annotations

from pathlib import Path

import pytest

from infosam.errors import ConfigError
from tune.config import SweepConfig, parse_sweep_config, parse_sweep_configs
from tune.group import make_group
from tune.home import Home
from tune.once import begun
from tune.plan import make_plan


def config(dataset: Path, *overrides: str) -> SweepConfig:
    return parse_sweep_config({"data": str(dataset)}, ["name=mine", *overrides], source="test")


def test_a_name_that_is_free(dataset: Path, home: Home) -> None:
    assert begun("mine", [config(dataset)], home) is None


def test_the_same_command_again_finds_what_it_began(dataset: Path, home: Home) -> None:
    plan = make_plan(config(dataset, "search.trials=3"), home)
    again = config(dataset, "search.trials=3", "resources.slots=5")
    assert begun("mine", [again], home) == plan.folder


def test_another_sweep_under_the_name_is_refused(dataset: Path, home: Home) -> None:
    make_plan(config(dataset, "search.trials=3"), home)
    with pytest.raises(ConfigError, match=r"began with other settings \(search\)"):
        begun("mine", [config(dataset, "search.trials=4")], home)


@pytest.mark.parametrize("remains", [[], ["sweep.yaml.part"]])
def test_what_is_left_of_a_driver_that_died_at_once_is_removed(dataset: Path, home: Home, remains: list[str]) -> None:
    folder = home.sweeps / "mine"
    folder.mkdir(parents=True)
    for name in remains:
        (folder / name).write_text("half")
    assert begun("mine", [config(dataset)], home) is None
    assert make_plan(config(dataset), home).sweep_id == "mine"


def test_storage_is_where_it_is_looked_for(dataset: Path, home: Home, tmp_path: Path) -> None:
    elsewhere = config(dataset, f"storage={tmp_path / 'shared'}")
    plan = make_plan(elsewhere, home)
    assert begun("mine", [elsewhere], home) == plan.folder == tmp_path / "shared" / "mine"


def test_a_group_is_found_by_its_name(dataset: Path, home: Home, tmp_path: Path) -> None:
    import shutil

    from infosam.data.card import CARD_NAME

    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    card = other / CARD_NAME
    card.write_text(card.read_text().replace('"disc"', '"ring"').replace("domain: disc", "domain: ring"))
    settings = {"name": "mine", "domains": [str(dataset), str(other)]}
    configs = parse_sweep_configs(settings, [], source="test")
    group = make_group(configs, home)
    assert begun("mine", configs, home) == group.folder
