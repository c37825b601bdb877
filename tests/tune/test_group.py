"""A file over several domains: what it means, what is refused, and the folders of a group."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from infosam.errors import ConfigError, DataError, UserError
from tune.cli import shipped
from tune.config import (
    SweepConfig,
    load_sweep_config,
    load_sweep_configs,
    parse_sweep_config,
    parse_sweep_configs,
    sweep_file,
)
from tune.group import Group, find_group, make_group
from tune.home import Home
from tune.plan import SETTINGS_FILE


def parse(settings: dict[str, Any], *overrides: str) -> list[SweepConfig]:
    return parse_sweep_configs(settings, overrides, source="sweep.yaml")


def of_domain(dataset: Path, folder: Path, domain: str) -> Path:
    """The same images under another name."""
    shutil.copytree(dataset, folder)
    card = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(card | {"domain": domain}))
    return folder


@pytest.fixture
def ring(dataset: Path, tmp_path: Path) -> Path:
    return of_domain(dataset, tmp_path / "ring", "ring")


def configs_of(config: SweepConfig, *folders: Path, **changes: Any) -> list[SweepConfig]:
    return [config.model_copy(update={"data": folder, **changes}) for folder in folders]


class TestFile:
    def test_each_domain_is_a_sweep_with_all_else_in_common(self) -> None:
        first, second = parse({"domains": ["a", "b"], "name": "both", "search": {"trials": 3}})
        assert (first.data, second.data) == (Path("a"), Path("b"))
        assert first == second.model_copy(update={"data": Path("a")})
        assert (first.name, first.search.trials) == ("both", 3)

    def test_one_domain_is_a_sweep_alone(self) -> None:
        assert parse({"domains": ["a"]}) == parse({"data": "a"}) == [parse_sweep_config({"data": "a"}, [], source="x")]

    def test_the_command_line_takes_the_place_of_the_file(self) -> None:
        found = load_sweep_configs(shipped("default"), ["domains=[a, b]", "space.optim.lr={log_uniform: [1e-4, 1e-3]}"])
        assert [config.data for config in found] == [Path("a"), Path("b")]
        assert max(found[1].space["optim.lr"].corners()) == 1e-3
        assert [config.data for config in parse({"domains": ["a", "b"]}, "data=c")] == [Path("c")]

    @pytest.mark.parametrize(
        ("settings", "overrides", "words"),
        [
            ({"data": "a", "domains": ["b"]}, [], "data and domains are both given"),
            ({}, ["data=a", "domains=[b]"], "data and domains are both given"),
            ({"domain": "leaf", "domains": ["a", "b"]}, [], "domain and domains are both given"),
            ({"domains": "a"}, [], "domains"),
            ({"domains": []}, [], "domains"),
            ({}, [], "data"),
            ({"domains": ["a", "b"], "search": {"trails": 3}}, [], "did you mean 'trials'"),
        ],
    )
    def test_what_is_refused(self, settings: dict[str, Any], overrides: list[str], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            parse(settings, *overrides)

    def test_it_is_written_as_it_was_read(self) -> None:
        for settings in ({"domains": ["a", "b"], "name": "both"}, {"data": "a", "domain": "leaf"}):
            configs = parse(settings)
            assert parse(yaml.safe_load(yaml.safe_dump(sweep_file(configs)))) == configs


class TestFolders:
    def test_each_sweep_has_its_own_and_the_group_another(
        self, sweep_config: SweepConfig, dataset: Path, ring: Path, home: Home
    ) -> None:
        group = make_group(configs_of(sweep_config, dataset, ring), home)
        assert sorted(path.name for path in home.sweeps.iterdir()) == ["disc", "disc-ring", "ring"]
        assert (group.folder.name, [plan.sweep_id for plan in group.plans]) == ("disc-ring", ["disc", "ring"])
        assert [plan.group for plan in group.plans] == ["disc-ring"] * 2
        for plan, data in zip(group.plans, (dataset, ring), strict=True):
            written = load_sweep_config(plan.folder / SETTINGS_FILE)
            assert (written.data, written.domain, written.name) == (data, plan.domain, plan.domain)
        again = make_group(configs_of(sweep_config, dataset, ring), home)
        assert (again.folder.name, [plan.sweep_id for plan in again.plans]) == ("disc-ring-2", ["disc-2", "ring-2"])
        assert find_group("disc-ring-2", home) == (again.folder, [plan.folder for plan in again.plans])
        assert find_group(str(group.folder), home)[1] == [plan.folder for plan in group.plans]
        assert find_group("ring", home) == (home.sweeps / "ring", [home.sweeps / "ring"])

    def test_a_name_is_shared(self, sweep_config: SweepConfig, dataset: Path, ring: Path, home: Home) -> None:
        group = make_group(configs_of(sweep_config, dataset, ring, name="night"), home)
        assert group.folder.name == "night"
        assert [plan.sweep_id for plan in group.plans] == ["night-disc", "night-ring"]
        assert group.plans[0].config.name == "night-disc"

    def test_a_sweep_alone_needs_no_group(self, sweep_config: SweepConfig, home: Home) -> None:
        group = make_group([sweep_config], home)
        assert group.folder == group.plans[0].folder
        assert [path.name for path in home.sweeps.iterdir()] == ["disc"]
        assert group.plans[0].group is None

    def test_a_sweep_that_is_gone_is_told(
        self, sweep_config: SweepConfig, dataset: Path, ring: Path, home: Home
    ) -> None:
        group = make_group(configs_of(sweep_config, dataset, ring), home)
        shutil.rmtree(group.plans[1].folder)
        with pytest.raises(UserError, match=r"resume the sweeps of this group by their own names: .*ring"):
            find_group("disc-ring", home)
        (group.folder / "group.yaml").write_text("sweeps: 3\n")
        with pytest.raises(UserError, match="must hold `members`"):
            find_group("disc-ring", home)

    def test_only_equal_resources_share_slots(
        self, sweep_config: SweepConfig, dataset: Path, ring: Path, home: Home
    ) -> None:
        group = make_group(configs_of(sweep_config, dataset, ring), home)
        group.check()
        resources = sweep_config.resources.model_copy(update={"slots": 1})
        other = group.plans[1].config.model_copy(update={"resources": resources})
        plans = [group.plans[0], _with_config(group.plans[1], other)]
        with pytest.raises(UserError, match="resources is not that of disc"):
            Group(folder=group.folder, plans=plans).check()


def _with_config(plan: Any, config: SweepConfig) -> Any:
    from dataclasses import replace

    return replace(plan, config=config)


def test_bad_input_of_one_domain_leaves_nothing_of_any(
    sweep_config: SweepConfig, dataset: Path, ring: Path, home: Home, tmp_path: Path
) -> None:
    twin = of_domain(dataset, tmp_path / "twin", "disc")
    empty = of_domain(dataset, tmp_path / "empty", "empty")
    card = json.loads((empty / "dataset.json").read_text())
    (empty / "dataset.json").write_text(json.dumps(card | {"counts": card["counts"] | {"test": 0}}))
    refused: list[tuple[list[SweepConfig], type[Exception], str]] = [
        (configs_of(sweep_config, dataset, tmp_path / "nowhere"), DataError, "nowhere"),
        (configs_of(sweep_config, dataset, ring, twin), ConfigError, "all hold 'disc'"),
        (configs_of(sweep_config, dataset, empty), UserError, "no images in test"),
        (configs_of(sweep_config, dataset, ring, name="n" * 60), ConfigError, "more than 63 characters"),
    ]
    for configs, error, words in refused:
        with pytest.raises(error, match=words):
            make_group(configs, home)
        assert not home.sweeps.exists()


def test_a_folder_that_cannot_be_written_takes_the_others_back(
    sweep_config: SweepConfig, dataset: Path, ring: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tune.group

    settled, made = tune.group.settled, []

    def refuse_the_second(draft: Any) -> Any:
        if made:
            raise UserError("no room")
        made.append(settled(draft))
        return made[-1]

    monkeypatch.setattr(tune.group, "settled", refuse_the_second)
    with pytest.raises(UserError, match="no room"):
        make_group(configs_of(sweep_config, dataset, ring), home)
    assert list(home.sweeps.iterdir()) == []
