"""The files for Ray's launcher against Ray's own schema, and what that leaves open against what Amazon's and Google's
clients know of their services."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import ray
import yaml
from botocore.model import OperationModel, Shape, StructureShape
from botocore.validate import ParamValidator
from cfnlint import api as cloudformation
from google_schema import problems_of_instance
from ray.autoscaler._private.util import prepare_config, validate_config
from yamllint import linter
from yamllint.config import YamlLintConfig

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
TARGETS = ("onprem", "aws", "gcp")
CLOUDS = ("aws", "gcp")

LINT = """
extends: default
rules:
  line-length: {max: 120}
  document-start: disable
  comments: {min-spaces-from-content: 1}
  truthy: {check-keys: false}
"""


def settings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def node_configs(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["node_config"] for each in config["available_node_types"].values()]


@cache
def run_instances() -> OperationModel:
    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")


def problems_of_node(config: dict[str, Any]) -> list[str]:
    """What Amazon would refuse; Ray itself understands SubnetIds, and adds how many."""
    given = {key: value for key, value in config.items() if key != "SubnetIds"} | {"MinCount": 1, "MaxCount": 1}
    shape = run_instances().input_shape
    report = ParamValidator().validate(given, shape)
    found = [report.generate_report()] if report.has_errors() else []
    return found + wrong_choices(given, shape)


def wrong_choices(value: Any, shape: Shape | None) -> list[str]:
    """Values of an enumeration that it does not have; botocore leaves them to the server."""
    if isinstance(shape, StructureShape):
        return [
            problem
            for key, inner in value.items()
            if key in shape.members
            for problem in wrong_choices(inner, shape.members[key])
        ]
    if shape is not None and shape.type_name == "list":
        return [problem for inner in value for problem in wrong_choices(inner, shape.member)]
    choices = getattr(shape, "enum", None)
    return [f"{value!r} is no {shape.name}"] if choices and value not in choices else []


@pytest.mark.parametrize("name", TARGETS)
def test_ray_accepts_it(name: str) -> None:
    config = prepare_config(settings(name))
    validate_config(config)
    assert config["cluster_name"] == "infosam"


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("section", [None, "auth", "docker"])
def test_ray_refuses_a_misspelt_key(name: str, section: str | None) -> None:
    config = settings(name)
    (config if section is None else config.setdefault(section, {}))["ssh_usr"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="ssh_usr"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_refuses_a_misspelt_key_of_a_node_type(name: str) -> None:
    config = settings(name)
    config["available_node_types"]["gpu_spot"]["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


def test_amazon_accepts_its_nodes() -> None:
    for node in node_configs(settings("aws")):
        assert not problems_of_node(node)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("InstanceTyp",), "g6.2xlarge", "InstanceTyp"),
        (("InstanceMarketOptions", "SpotOptions", "MaxPrize"), "1", "MaxPrize"),
        (("InstanceMarketOptions", "MarketType"), "spott", "spott"),
        (("MetadataOptions", "HttpTokens"), "requierd", "requierd"),
        (("InstanceType",), "g6.3xlarge", "g6.3xlarge"),
    ],
)
def test_a_misspelt_setting_of_a_node_is_found(path: tuple[str, ...], value: str, words: str) -> None:
    assert words in " ".join(problems_of_node(with_worker_setting("aws", path, value)))


def with_worker_setting(name: str, path: tuple[str | int, ...], value: str) -> dict[str, Any]:
    """The settings of a cloud's workers with one changed."""
    node: dict[str, Any] = copy.deepcopy(settings(name)["available_node_types"]["gpu_spot"]["node_config"])
    place: Any = node
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return node


def test_google_accepts_its_nodes() -> None:
    for node in node_configs(settings("gcp")):
        assert not problems_of_instance(node)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("machineTyp",), "g2-standard-8", "machineTyp"),
        (("scheduling", "provisioningModl"), "SPOT", "provisioningModl"),
        (("scheduling", "provisioningModel"), "SPOTT", "SPOTT"),
        (("disks", 0, "initializeParams", "diskSizeGB"), "120", "diskSizeGB"),
        (("metadata", "items", 0, "nam"), "ssh-keys", "nam"),
        (("serviceAccounts", 0, "scope"), "x", "scope"),
    ],
)
def test_a_misspelt_setting_of_a_google_node_is_found(path: tuple[str | int, ...], value: str, words: str) -> None:
    assert words in " ".join(problems_of_instance(with_worker_setting("gcp", path, value)))


@pytest.mark.parametrize("name", CLOUDS)
def test_machines_log_in_where_the_image_is(name: str) -> None:
    config = settings(name)
    registry = config["docker"]["image"].partition("/")[0]
    assert registry in " ".join(config["initialization_commands"]).split()


@pytest.mark.parametrize("name", CLOUDS)
def test_the_folder_belongs_to_the_user_of_the_image(name: str) -> None:
    (user,) = re.findall(r"useradd --uid (\d+)", (FOLDER / "Dockerfile").read_text(encoding="utf-8"))
    assert f"sudo chown {user}:{user} /mnt/infosam" in " ".join(settings(name)["initialization_commands"])


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_spot_gpus_and_the_head_is_neither(name: str) -> None:
    config = prepare_config(settings(name))
    kinds = config["available_node_types"]
    head, worker = kinds[config["head_node_type"]], kinds["gpu_spot"]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert head["max_workers"] == 0
    assert worker["resources"]["GPU"] >= 1
    assert (worker["min_workers"], worker["max_workers"]) == (0, config["max_workers"])
    spot = re.compile("spot", re.IGNORECASE)
    assert spot.search(json.dumps(worker["node_config"]))
    assert not spot.search(json.dumps(head["node_config"]))
    assert config["idle_timeout_minutes"] >= 15  # an image of some 10 GB takes minutes


@pytest.mark.parametrize("name", CLOUDS)
def test_head_and_workers_have_other_rights(name: str) -> None:
    kinds = settings(name)["available_node_types"]
    rights = [
        kind["node_config"].get("IamInstanceProfile") or kind["node_config"]["serviceAccounts"]
        for kind in (kinds["head"], kinds["gpu_spot"])
    ]
    assert rights[0] != rights[1]


@pytest.mark.parametrize("name", TARGETS)
def test_the_dashboard_is_on_loopback_and_the_token_goes_to_all_nodes(name: str) -> None:
    config = prepare_config(settings(name))
    starts = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in starts
    text = json.dumps(config)
    assert "RAY_AUTH_MODE=token" in text
    (remote,) = config["file_mounts"]
    path = re.findall(r"RAY_AUTH_TOKEN_PATH=(\S+?)['\"]", text)[0]
    assert path.replace("$HOME", "~") == f"{remote}/auth_token"


@pytest.mark.parametrize("name", TARGETS)
def test_keys_are_for_this_cluster_only(name: str) -> None:
    config = settings(name)
    key = config["auth"].get("ssh_private_key") or config["provider"]["key_pair"]["key_name"]
    assert "infosam" in key
    assert "id_" not in key


@pytest.mark.parametrize("name", CLOUDS)
def test_defaults_of_ray_that_install_something_are_replaced(name: str) -> None:
    config = prepare_config(settings(name))
    for key in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert config[key] == []


def test_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pins["ray"] == ray.__version__
    for path in FOLDER.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\binfosam:(\d[\w.]*)", text)) <= {project["version"]}, path
        assert set(re.findall(r"rayVersion: \"([\d.]+)\"|Ray\b[^\n]*?\b(\d+\.\d+\.\d+)\"", text)) <= {
            (pins["ray"], ""),
            ("", pins["ray"]),
        }, path
    assert f'"{pins["ray"]}"' in (FOLDER / "onprem.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.name)
def test_files_are_tidy(path: Path) -> None:
    found = linter.run(path.read_text(encoding="utf-8"), YamlLintConfig(LINT))
    assert not [f"{path.name}:{each.line}: {each.desc}" for each in found]


class _Template(yaml.SafeLoader):
    """Reads CloudFormation's short forms as mappings: `!Ref x` is {Ref: x}."""


def _short_form(loader: yaml.SafeLoader, name: str, node: yaml.ScalarNode) -> dict[str, str]:
    return {name: loader.construct_scalar(node)}


_Template.add_multi_constructor("!", _short_form)


TEMPLATE = (FOLDER / "aws_foundation.yaml").read_text(encoding="utf-8")


def problems_of_template(text: str) -> list[str]:
    """What Amazon's own linter says, from the schemas it brings along."""
    return [str(found) for found in cloudformation.lint(text, regions=["us-east-1"])]


def test_cloudformation_accepts_the_template() -> None:
    assert not problems_of_template(TEMPLATE)


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("ThroughputMode: elastic", "ThroughputMod: elastic", "ThroughputMod'"),
        ("ThroughputMode: elastic", "ThroughputMode: elastick", "'elastick'"),
        ("ScanOnPush: true", "ScanOnPsh: true", "ScanOnPsh'"),
        ("AllowedPattern:", "AllowdPattern:", "AllowdPattern"),
        ("!GetAtt Nodes.GroupId", "!GetAtt Nodes.GroupIdd", "GroupIdd"),
    ],
)
def test_a_misspelt_word_of_the_template_is_found(right: str, wrong: str, words: str) -> None:
    assert right in TEMPLATE
    assert words in " ".join(problems_of_template(TEMPLATE.replace(right, wrong)))


def test_the_template_has_no_aliases() -> None:
    """CloudFormation refuses them."""
    assert not [event for event in yaml.parse(TEMPLATE) if isinstance(event, yaml.AliasEvent)]


def test_roles_may_no_more_than_they_need() -> None:
    template = yaml.load(TEMPLATE, _Template)
    roles = {name: each["Properties"] for name, each in template["Resources"].items() if name.endswith("Role")}
    assert set(roles) == {"HeadRole", "WorkerRole"}
    assert all("ManagedPolicyArns" not in role for role in roles.values())
    statements = [
        statement
        for role in roles.values()
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    harmless = re.compile(r"ec2:Describe\w+|ecr:GetAuthorizationToken")
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action]
        if statement["Resource"] == "*":
            assert all(harmless.fullmatch(action) for action in actions), statement
    profiles = {
        each["node_config"]["IamInstanceProfile"]["Name"] for each in settings("aws")["available_node_types"].values()
    }
    name = template["Parameters"]["ClusterName"]["Default"]
    assert profiles == {f"{name}-head", f"{name}-worker"}


def test_references_of_the_template_exist() -> None:
    text = TEMPLATE
    template = yaml.load(text, _Template)
    known = set(template["Parameters"]) | set(template["Resources"])
    used = set(re.findall(r"!Ref (\w+)", text)) | set(re.findall(r"!GetAtt (\w+)\.", text))
    used |= {name for name in re.findall(r"\$\{([^}]+)\}", text) if not name.startswith("AWS::")}
    assert used <= known
    assert set(template["Parameters"]) <= used
