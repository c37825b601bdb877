"""From a domain's name to a bundle on this machine, or to a plain word about why not."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infosam.errors import UserError
from tune.champions.lookup import champions, domains, resolve
from tune.champions.promotion import Challenger, Rescore, promote
from tune.champions.registry import RegistryUnreachable, open_domain, open_registry
from tune.home import Home

Offer = Callable[..., Challenger]


@pytest.fixture
def bundle(store: str, offer: Offer, rescore: Rescore) -> Path:
    """The champion's bundle as the registry keeps it."""
    promote(store, offer(0.8), rescore)
    found = resolve("polyp")
    assert found is not None
    return found


def test_asking_for_champions_makes_no_store(home: Home) -> None:
    assert champions() == []
    assert domains() == []
    assert resolve("polyp") is None
    with pytest.raises(UserError, match="run `infosam sweep`"), open_domain("polyp"):
        pass
    assert not home.folder.exists()


@pytest.mark.parametrize("missing", [".", "card.json", "rest.safetensors"])
def test_a_champion_whose_files_are_gone_is_named(bundle: Path, missing: str) -> None:
    path = bundle / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=r"infosam-polyp version 1 cannot be used.*infosam champions show polyp"):
        resolve("polyp")


def test_a_card_that_was_changed_is_refused(bundle: Path) -> None:
    (bundle / "card.json").write_text((bundle / "card.json").read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(UserError, match="not the card that was registered"):
        resolve("polyp")


def test_weights_that_were_changed_are_refused(bundle: Path) -> None:
    (bundle / "rest.safetensors").write_bytes(b"others")
    with pytest.raises(UserError, match="damaged"):
        resolve("polyp")


def test_a_version_made_by_hand_is_refused(store: str, bundle: Path) -> None:
    with open_registry(store) as registry:
        registry.client.delete_model_version_tag("infosam-polyp", "1", "card_sha256")
    with pytest.raises(UserError, match="no tag card_sha256"):
        resolve("polyp")


def test_a_registry_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryUnreachable, match=r"registry at http://127\.0\.0\.1:9"):
        resolve("polyp")


@pytest.fixture(scope="module")
def server(
    empty_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
    serve: Callable[[Home, int], AbstractContextManager[str]],
) -> Iterator[tuple[str, Path]]:
    """Its address, and where it keeps artifacts."""
    far = Home(folder=tmp_path_factory.mktemp("far"))
    shutil.copyfile(empty_store, far.database)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with serve(far, port) as uri:
        yield uri, far.artifacts


@pytest.fixture
def artifacts(server: tuple[str, Path], made_up: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle of the champion of a domain of the test's own, `tmp_path.name`, where the server keeps it."""
    uri, folder = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    challenger = replace(made_up.challenger(uri, None, tmp_path / "trials", 0.8), domain=tmp_path.name)
    assert promote(uri, challenger, made_up.rescore).promoted
    (found,) = folder.rglob(f"{challenger.run_id}/artifacts/*/artifacts/bundle")
    return found


@pytest.mark.slow
class TestOnAServer:
    """Artifacts come over the wire."""

    def test_it_is_fetched_once_and_without_code(self, artifacts: Path, home: Home, tmp_path: Path) -> None:
        first = resolve(tmp_path.name)
        assert first is not None
        assert first.is_relative_to(home.folder)
        assert (first / "card.json").read_bytes() == (artifacts / "card.json").read_bytes()
        files = [path.name for path in home.folder.rglob("*") if path.is_file()]
        assert sorted(files) == ["card.json", "rest.safetensors"]
        shutil.rmtree(artifacts)
        assert resolve(tmp_path.name) == first

    def test_a_damaged_copy_is_fetched_again(self, artifacts: Path, tmp_path: Path) -> None:
        first = resolve(tmp_path.name)
        assert first is not None
        (first / "rest.safetensors").write_bytes(b"half")
        assert resolve(tmp_path.name) == first
        assert (first / "rest.safetensors").read_bytes() == (artifacts / "rest.safetensors").read_bytes()

    @pytest.mark.parametrize("damage", ["gone", "half"])
    def test_a_broken_one_leaves_nothing_here(self, artifacts: Path, home: Home, tmp_path: Path, damage: str) -> None:
        weights = artifacts / "rest.safetensors"
        weights.unlink() if damage == "gone" else weights.write_bytes(b"half")
        with pytest.raises(UserError, match=f"infosam-{tmp_path.name} version 1 cannot be used"):
            resolve(tmp_path.name)
        assert [path for path in home.folder.rglob("*") if path.is_file()] == []
