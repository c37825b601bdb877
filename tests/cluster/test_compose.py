"""cluster/compose.yaml: what it publishes, where its secrets come from, and that it starts what the page says."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster" / "compose.yaml"
PAGE = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
SECRETS = {"PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"}


# The keys of Compose's that we use, by where they stand; * is a name of ours. Compose refuses others, but only when
# somebody starts it.
KEYS = {
    (): {"name", "services", "volumes"},
    ("services", "*"): {"image", "build", "environment", "command", "ports", "volumes", "depends_on", "healthcheck",
                        "restart"},
    ("services", "*", "build"): {"dockerfile_inline"},
    ("services", "*", "healthcheck"): {"test", "interval", "timeout", "retries"},
    ("services", "*", "depends_on", "*"): {"condition"},
}  # fmt: skip
NAMED_BY_US = {("services",), ("volumes",), ("services", "*", "environment"), ("services", "*", "depends_on")}


def unknown_keys(value: Any, place: tuple[str, ...] = ()) -> list[str]:
    """Keys that Compose would refuse, and those that we have not used so far."""
    found: list[str] = []
    if isinstance(value, dict):
        free = place in NAMED_BY_US
        for key, inner in value.items():
            if not free and key not in KEYS.get(place, ()):
                found.append(".".join((*place, key)))
            found += unknown_keys(inner, (*place, "*" if free else key))
    return found


def test_keys_are_known_and_a_misspelt_one_is_found() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert not unknown_keys(yaml.safe_load(text))
    for word in ("restart", "retries", "condition", "dockerfile_inline", "services", "depends_on"):
        assert unknown_keys(yaml.safe_load(text.replace(f"{word}:", f"{word}s:"))), word


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    return found


def test_every_service_is_pinned_checked_and_restarted(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "mlflow"}
    for service in services.values():
        assert re.search(r":\d+\.\d+", service["image"])
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"
    assert services["mlflow"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_only_loopback_is_published(services: dict[str, Any]) -> None:
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    assert "ports" not in services["postgres"]


def test_secrets_come_from_the_environment_and_a_missing_one_stops_it(services: dict[str, Any]) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+):\?", text)) == SECRETS
    assert set(re.findall(r"for name in ([A-Z_ ]+);", PAGE)[0].split()) == SECRETS
    for service in services.values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|SECRET", name):
                assert re.match(r"\$\{\w+:\?", value), name
    assert "/cluster/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_image_holds_the_versions_that_tests_run_with(services: dict[str, Any]) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    asked = dict(re.findall(r"(\S+)==(\S+)", services["mlflow"]["build"]["dockerfile_inline"]))
    assert set(asked) == {"mlflow", "psycopg2-binary", "Flask-WTF"}
    assert asked == {name: pinned[name] for name in asked}
    assert services["mlflow"]["image"].endswith(f":{asked['mlflow']}")


def test_it_starts_the_server_of_the_page(services: dict[str, Any]) -> None:
    """Same options, but for where containers differ: host, folder, names."""
    plain = re.search(r"^mlflow server (.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert plain
    words = plain[1].replace("\\\n", " ").split()
    assert {word for word in words if word.startswith("--")} == {
        word.partition("=")[0] for word in services["mlflow"]["command"][2:]
    }
    values = dict(word.split("=", 1) for word in services["mlflow"]["command"][2:] if "=" in word)
    for option in ("--app-name", "--backend-store-uri", "--workers", "--port"):
        assert values[option] == words[words.index(option) + 1]


def test_users_are_in_postgresql_and_may_nothing_by_default(services: dict[str, Any]) -> None:
    assert "./mlflow_auth.ini:/etc/mlflow_auth.ini:ro" in services["mlflow"]["volumes"]
    settings = configparser.ConfigParser()
    settings.read(ROOT / "cluster" / "mlflow_auth.ini")
    found = dict(settings["mlflow"])
    assert found["default_permission"] == "NO_PERMISSIONS"
    assert found["database_uri"] == "postgresql+psycopg2:///mlflow"
    assert "admin_password" not in found
