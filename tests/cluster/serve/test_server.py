"""`infosam serve` as a user starts it: real replicas, real adapters, a registry, a crowd."""

from __future__ import annotations

import io
import json
import signal
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image
from servers import free_port

from infosam.data.store import open_dataset
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = "a-token-nobody-would-guess"
CROWD = 50
BOX = (20.0, 20.0, 90.0, 80.0)


def as_file(rgb: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, format="PNG")
    return stream.getvalue()


def mask_of(answer: requests.Response) -> NDArray[np.bool_]:
    return np.asarray(Image.open(io.BytesIO(answer.content))) > 0


def ask(url: str, content: bytes, token: str | None = None, **fields: str) -> requests.Response:
    return requests.post(
        f"{url}/v1/mask",
        files={"image": content},
        data=fields,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=120,
    )


def test_folders_are_served_with_a_token_and_the_masks_are_those_of_predict(
    bundles: tuple[Path, Path], spores: Path, tmp_path: Path, serve: Callable[..., AbstractContextManager[Any]]
) -> None:
    rgb = open_dataset(spores).read("test", 0).image
    options = ["--bundle", f"first={bundles[0]}", "--bundle", f"second={bundles[1]}"]
    with serve(tmp_path / "home", free_port(), *options, INFOSAM_SERVE_TOKEN=TOKEN) as server:
        assert ask(server.url, as_file(rgb)).status_code == 401
        listed = requests.get(f"{server.url}/v1/domains", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)
        assert [one["domain"] for one in listed.json()["domains"]] == ["first", "second"]
        for name, bundle in zip(("first", "second"), bundles, strict=True):
            answer = ask(server.url, as_file(rgb), TOKEN, domain=name, prompt=json.dumps({"box": BOX}))
            assert answer.status_code == 200, answer.text
            expected = Predictor(bundle, device="cpu").predict(rgb, ImagePrompt(box=BOX))
            assert np.array_equal(mask_of(answer), expected)
            assert json.loads(answer.headers["X-InfoSAM-Choice"])["domain"] == name
        chosen = ask(server.url, as_file(rgb), TOKEN)
        assert json.loads(chosen.headers["X-InfoSAM-Choice"])["domain"] in ("first", "second")
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        away = json.loads(ask(server.url, as_file(noise), TOKEN).headers["X-InfoSAM-Choice"])
        assert away["domain"] is None
        assert away["score"] > away["threshold"]
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(90) == 0


@pytest.fixture
def registry(bundles: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Promotes the first or the second bundle in a results folder of its own: version 1, then 2."""
    from tune.champions.promotion import Challenger, promote
    from tune.champions.rule import Evidence
    from tune.home import Home
    from tune.tracking import new_client

    home = Home(folder=tmp_path / "home")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home.folder.mkdir()
    client = new_client(home.tracking_uri)
    experiment = client.create_experiment("spores", artifact_location=home.artifacts.as_uri())

    def promoted(number: int) -> None:
        dice = np.full(3, 0.7 + 0.1 * number)
        evidence = Evidence(prompt="box", adapter=dice, zero_shot=dice - 0.3, trivial=dice - 0.2)
        run = client.create_run(experiment)
        challenger = Challenger(domain="spores", bundle=bundles[number], run_id=run.info.run_id, evidence=evidence)
        assert promote(home.tracking_uri, challenger, lambda bundle: np.full(3, 0.7)).promoted

    return promoted


class Crowd:
    """Clients that send good pictures, bad ones and half ones, and compare every mask with the one it must be."""

    def __init__(self, url: str, pictures: list[NDArray[np.uint8]], bundles: tuple[Path, Path]) -> None:
        self._url = url
        self._files = [as_file(rgb) for rgb in pictures]
        predictors = {
            "1": Predictor(bundles[0], device="cpu"),
            "2": Predictor(bundles[1], device="cpu"),
            None: Predictor(_plain_model(bundles[0]), device="cpu"),
        }
        self._right = {
            (version, index): predictor.predict(rgb, ImagePrompt(box=BOX))
            for version, predictor in predictors.items()
            for index, rgb in enumerate(pictures)
        }
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def send(self, number: int) -> None:
        """The request of that number, one of five kinds."""
        index, kind = number % len(self._files), number % 5
        if kind == 0:
            self._check(ask(self._url, b"no picture"), 400)
        elif kind == 1:
            self._check(ask(self._url, as_file(np.zeros((1100, 1000, 3), dtype=np.uint8))), 413)
        elif kind == 2:
            hang_up(self._url, self._files[index])
        else:
            self._good(index, "none" if kind == 3 else "spores")

    def _good(self, index: int, domain: str) -> None:
        answer = ask(self._url, self._files[index], domain=domain, prompt=json.dumps({"box": BOX}))
        if not self._check(answer, 200):
            return
        version = json.loads(answer.headers["X-InfoSAM-Choice"])["version"]
        self.seen[f"version {version}"] += 1
        if not np.array_equal(mask_of(answer), self._right[version, index]):
            self.wrong.append(f"picture {index}: another mask than that of version {version}")

    def _check(self, answer: requests.Response, status: int) -> bool:
        """Whether the answer is the expected one; 503 is none, but no fault either."""
        self.seen[str(answer.status_code)] += 1
        if answer.status_code not in (status, 503):
            self.wrong.append(f"{answer.status_code} for {status}: {answer.text[:200]}")
        return answer.status_code == status


def test_a_crowd_with_bad_pictures_and_a_promotion_in_the_middle(
    bundles: tuple[Path, Path],
    registry: Callable[[int], None],
    spores: Path,
    tmp_path: Path,
    serve: Callable[..., AbstractContextManager[Any]],
) -> None:
    registry(0)
    pictures = [open_dataset(spores).read("test", index).image for index in range(3)]
    with serve(tmp_path / "home", free_port(), "--follow-s", "0.5", "--max-megapixels", "1") as server:
        crowd = Crowd(server.url, pictures, bundles)

        def client(number: int) -> None:
            for turn in range(4):
                crowd.send(number + turn)
                if (number, turn) == (0, 1):
                    registry(1)

        with ThreadPoolExecutor(CROWD) as clients:
            list(clients.map(client, range(CROWD)))
        assert not crowd.wrong, crowd.wrong[:5]
        assert crowd.seen["200"] >= CROWD, crowd.seen
        _until_version(server.url, "2", as_file(pictures[0]))
        assert requests.get(f"{server.url}/healthz", timeout=60).status_code == 200


def _plain_model(bundle: Path) -> Any:
    from infosam.bundle import read_bundle

    return read_bundle(bundle).config.model


def hang_up(url: str, content: bytes) -> None:
    """Sends half of a request and goes away."""
    host, port = url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/mask HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(content)}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + content[: len(content) // 2])


def _until_version(url: str, version: str, content: bytes) -> None:
    """Waits until the promotion has come; the test's time limit ends it."""
    while True:
        answer = ask(url, content, domain="spores")
        if answer.status_code == 200 and json.loads(answer.headers["X-InfoSAM-Choice"])["version"] == version:
            return
