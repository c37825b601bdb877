"""What `infosam serve` refuses before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.adapters import choose_model
from cluster.serve.settings import ServeSettings, check_exposure, is_loopback, read_token
from cluster.serve.start import check_port
from infosam.cli import build_app
from infosam.config import ModelConfig
from infosam.errors import UserError


@pytest.mark.parametrize(
    "token", ["short", "with a space in the middle", "tab\tand so on and on", "ümlaut-ümlaut-ümlaut"]
)
def test_a_poor_token_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFOSAM_SERVE_TOKEN", token)
    with pytest.raises(UserError, match="INFOSAM_SERVE_TOKEN") as refusal:
        read_token()
    assert token not in str(refusal.value)


def test_no_token_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFOSAM_SERVE_TOKEN", raising=False)
    assert read_token() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_others_need_one(host: str) -> None:
    check_exposure(host, "some token")
    with pytest.raises(UserError, match="INFOSAM_SERVE_TOKEN"):
        check_exposure(host, None)


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}"):
            check_port("127.0.0.1", port)


def test_the_base_is_the_one_most_bundles_have(tmp_path: Path) -> None:
    small, large = ModelConfig(image_px=64), ModelConfig(image_px=128)
    assert choose_model([], None) == ModelConfig()
    assert choose_model([small, large, small], None) == small
    moved = large.model_copy(update={"checkpoint": tmp_path / "there.pth"})
    assert choose_model([moved, large, small], tmp_path / "here.pth").checkpoint == tmp_path / "here.pth"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bundle", "polyp"], "DOMAIN=DIR"),
        (["--bundle", "a=x", "--bundle", "a=y"], "given twice"),
        (["--bundle", "a=nowhere"], "not an adapter bundle"),
        (["--host", "0.0.0.0"], "INFOSAM_SERVE_TOKEN"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFOSAM_SERVE_TOKEN", raising=False)
    app, _ = build_app()
    with pytest.raises(UserError, match=words):
        CliRunner().invoke(app, ["serve", *arguments], catch_exceptions=False)


def test_the_token_is_not_in_the_settings_text() -> None:
    assert "secret-secret-secret" not in str(ServeSettings(token="secret-secret-secret"))
