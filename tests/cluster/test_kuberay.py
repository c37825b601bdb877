"""Manifests for Kubernetes against KubeRay's schemas (schemas/), whose pods and claims also check our own workloads."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parents[2] / "cluster" / "kuberay"
SCHEMAS = json.loads((Path(__file__).parent / "schemas" / "kuberay.json").read_text(encoding="utf-8"))
POSTGRES_IMAGE = re.compile(r"image: (postgres:\S+)")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def kind(name: str, file: str) -> dict[str, Any]:
    (found,) = [each for each in documents(file) if each["kind"] == name]
    return found


def schema_at(*path: str) -> dict[str, Any]:
    """A part of the schema of a kind of KubeRay's, by names of properties."""
    place = SCHEMAS["kinds"][path[0]]
    for name in path[1:]:
        while "$ref" in place:
            place = SCHEMAS["$defs"][place["$ref"].rpartition("/")[2]]
        place = place["items"] if name == "[]" else place["properties"][name]
    return {**place, "$defs": SCHEMAS["$defs"]}


def problems(value: Any, schema: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]


POD = schema_at("RayCluster", "spec", "headGroupSpec", "template")
SERVICE_SPEC = schema_at("RayCluster", "spec", "headGroupSpec", "headService", "spec")
CLAIM_SPEC = schema_at(
    "RayCluster", "spec", "headGroupSpec", "template", "spec", "volumes", "[]", "ephemeral", "volumeClaimTemplate",
    "spec",
)  # fmt: skip


TEXT = {"type": "string"}
LABELS = {"type": "object", "additionalProperties": TEXT}


def closed(**properties: Any) -> dict[str, Any]:
    """Of an object with these keys and no others; what Kubernetes has beside them, we do not use."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def listed(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def resource(name: str, version: str, **more: Any) -> dict[str, Any]:
    """Of a whole manifest."""
    meta = closed(name=TEXT, labels=LABELS)
    found = closed(apiVersion={"const": version}, kind={"const": name}, metadata=meta, **more)
    return {**found, "required": [*found["properties"]], "$defs": SCHEMAS["$defs"]}


EXPRESSION = closed(key=TEXT, operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}, values=listed(TEXT))
SELECTOR = closed(matchLabels=LABELS, matchExpressions=listed(EXPRESSION))
PEER = closed(podSelector=SELECTOR, namespaceSelector=SELECTOR)
PORT = closed(protocol={"enum": ["TCP", "UDP", "SCTP"]}, port={"type": ["integer", "string"]})
INGRESS = {"from": listed(PEER), "ports": listed(PORT)}
REPLICAS = {"type": "integer"}
MANIFESTS = {
    "NetworkPolicy": resource("NetworkPolicy", "networking.k8s.io/v1", spec=closed(
        podSelector=SELECTOR, policyTypes=listed({"enum": ["Ingress", "Egress"]}), ingress=listed(closed(**INGRESS)))),
    "Deployment": resource("Deployment", "apps/v1", spec=closed(
        replicas=REPLICAS, selector=SELECTOR, template=POD,
        strategy=closed(type={"enum": ["Recreate", "RollingUpdate"]}))),
    "StatefulSet": resource("StatefulSet", "apps/v1", spec=closed(
        replicas=REPLICAS, selector=SELECTOR, template=POD, serviceName=TEXT,
        volumeClaimTemplates=listed(closed(metadata=closed(name=TEXT), spec=CLAIM_SPEC)))),
    "PersistentVolumeClaim": resource("PersistentVolumeClaim", "v1", spec=CLAIM_SPEC),
    "Service": resource("Service", "v1", spec=SERVICE_SPEC),
}  # fmt: skip
OURS = [each for file in ("shared.yaml", "tracking.yaml") for each in documents(file)]


@pytest.mark.parametrize("manifest", OURS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_manifests_beside_the_cluster_are_valid(manifest: dict[str, Any]) -> None:
    assert not problems(manifest, MANIFESTS[manifest["kind"]])


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where objects are whose keys have a meaning of their own; those of labels and quantities are free."""
    if isinstance(value, dict):
        if path[-1:] not in (("labels",), ("matchLabels",), ("requests",), ("limits",), ("selector",)):
            yield path
        for key, part in value.items():
            yield from places(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from places(part, (*path, number))


@pytest.mark.parametrize("manifest", OURS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_misspelt_key_is_found_at_any_depth_of_them(manifest: dict[str, Any]) -> None:
    for path in places(manifest):
        changed = copy.deepcopy(manifest)
        place: Any = changed
        for step in path:
            place = place[step]
        place["ingres"] = "x"
        assert "ingres" in " ".join(problems(changed, MANIFESTS[manifest["kind"]])), path


@pytest.mark.parametrize("name", ["RayCluster", "RayJob"])
def test_kuberay_accepts_it(name: str) -> None:
    assert not problems(kind(name, f"{name.lower()}.yaml"), schema_at(name))


@pytest.mark.parametrize(
    "path",
    [
        ("spec",),
        ("spec", "authOptions"),
        ("spec", "autoscalerOptions"),
        ("spec", "headGroupSpec"),
        ("spec", "headGroupSpec", "template", "spec"),
        ("spec", "headGroupSpec", "template", "spec", "containers", 0),
        ("spec", "workerGroupSpecs", 0),
        ("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resources"),
    ],
)
def test_a_misspelt_key_is_found(path: tuple[str | int, ...]) -> None:
    manifest = copy.deepcopy(kind("RayCluster", "raycluster.yaml"))
    place: Any = manifest
    for step in path:
        place = place[step]
    place["maxReplica"] = 3
    assert "maxReplica" in " ".join(problems(manifest, schema_at("RayCluster")))


def test_a_wrong_type_is_found() -> None:
    manifest = copy.deepcopy(kind("RayJob", "rayjob.yaml"))
    manifest["spec"]["backoffLimit"] = "three"
    assert "three" in " ".join(problems(manifest, schema_at("RayJob")))


def test_both_describe_the_same_cluster() -> None:
    assert kind("RayJob", "rayjob.yaml")["spec"]["rayClusterSpec"] == kind("RayCluster", "raycluster.yaml")["spec"]


def test_a_retried_job_goes_on() -> None:
    spec = kind("RayJob", "rayjob.yaml")["spec"]
    words = shlex.split(spec["entrypoint"])
    assert spec["backoffLimit"] > 0
    assert words[:3] == ["python", "-m", "tune.sweep"]
    assert "--once" in words
    assert spec["shutdownAfterJobFinishes"]


def test_the_cluster_is_closed_and_waits_for_pulls() -> None:
    spec = kind("RayCluster", "raycluster.yaml")["spec"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] >= 900
    head, (worker,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in json.dumps(head)
    assert worker["minReplicas"] == 0 < worker["maxReplicas"]
    assert kind("NetworkPolicy", "shared.yaml")["spec"]["policyTypes"] == ["Ingress"]


def pods() -> list[tuple[str, dict[str, Any]]]:
    spec = kind("RayCluster", "raycluster.yaml")["spec"]
    return [
        ("head", spec["headGroupSpec"]["template"]),
        ("worker", spec["workerGroupSpecs"][0]["template"]),
        ("mlflow", kind("Deployment", "tracking.yaml")["spec"]["template"]),
        ("postgres", kind("StatefulSet", "tracking.yaml")["spec"]["template"]),
    ]


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_are_valid_and_may_nothing_they_need_not(name: str, pod: dict[str, Any]) -> None:
    assert not problems(pod, POD)
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    for container in pod["spec"]["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"]["memory"]
        assert re.search(r":\d", container["image"])
        for variable in container.get("env", []):
            if re.search("PASSWORD|SECRET", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_workloads_find_their_pods() -> None:
    for each in documents("tracking.yaml"):
        if each["kind"] in ("Deployment", "StatefulSet"):
            spec = each["spec"]
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_volumes_and_secrets_are_those_that_exist() -> None:
    claims = {each["metadata"]["name"] for each in (*documents("shared.yaml"), *documents("tracking.yaml"))
              if each["kind"] == "PersistentVolumeClaim"}  # fmt: skip
    for _, pod in pods():
        for volume in pod["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        names = {volume["name"] for volume in pod["spec"].get("volumes", [])} | {"database"}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= names


def test_the_server_is_that_of_compose() -> None:
    compose = (FOLDER.parent / "compose.yaml").read_text(encoding="utf-8")
    server = yaml.safe_load(compose)["services"]["mlflow"]["command"]
    command = kind("Deployment", "tracking.yaml")["spec"]["template"]["spec"]["containers"][0]["command"]
    plain = [word for word in server if not word.startswith("--allowed-hosts")]
    assert [word for word in command if not word.startswith("--allowed-hosts")] == plain
    assert POSTGRES_IMAGE.findall(compose) == POSTGRES_IMAGE.findall((FOLDER / "tracking.yaml").read_text())
