"""`infosam serve` as a user starts it: real replicas, real adapters, a registry, a crowd."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import signal
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
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
LAST_BITS = 1e-3
"""Share of a mask that may differ where pictures went through the model together."""
PROXY_MIB, REPLICA_MIB, HUGE_MIB = 500, 300, 1800
"""More than at first: of the proxy 256 MiB of bodies that are held, and copies on their way; of the replica under the
crowd, and with 60 megapixels."""


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
    with serve(tmp_path / "home", free_port(), *options, "--replicas", "2", INFOSAM_SERVE_TOKEN=TOKEN) as server:
        assert ask(server.url, as_file(rgb)).status_code == 401
        assert ask_endlessly(server.url, 1).status_code == 401
        replicas: set[str] = set()
        while len(replicas) < 2:  # the test's time limit ends it
            replicas |= replicas_of(server.url, 4, Authorization=f"Bearer {TOKEN}")
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


KINDS = 8


class Crowd:
    """Clients that send good pictures, bad ones and half ones, and compare every mask with the one it must be."""

    def __init__(self, url: str, pictures: Mapping[str, NDArray[np.uint8]], bundles: Mapping[str, Path]) -> None:
        """`pictures` by domain; `bundles` by domain and version, such as "spores 1"."""
        self._url = url
        self._names = list(pictures)
        self._files = {name: as_file(rgb) for name, rgb in pictures.items()}
        predictors = {name: Predictor(bundle, device="cpu") for name, bundle in bundles.items()}
        predictors["None None"] = Predictor(_plain_model(next(iter(bundles.values()))), device="cpu")
        self._right = {
            (made_by, name): predictor.predict(rgb, ImagePrompt(box=BOX))
            for made_by, predictor in predictors.items()
            for name, rgb in pictures.items()
        }
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def send(self, number: int) -> None:
        """The request of that number, one of eight kinds."""
        name, kind = self._names[number // KINDS % len(self._names)], number % KINDS
        if kind == 0:
            self._check(ask(self._url, b"no picture"), 400)
        elif kind == 1:
            self._check(ask(self._url, claimed(30_000, 30_000)), 413)
        elif kind == 2:
            hang_up(self._url, self._files[name])
        elif kind == 3:
            self._check(ask_endlessly(self._url, 33), 413)
        elif kind == 4:
            self._good(name, "none", None)
        elif kind == 5:
            self._good(name, name, name)
        else:
            self._good(name, "auto", name)

    def _good(self, name: str, asked: str, expected: str | None) -> None:
        answer = ask(self._url, self._files[name], domain=asked, prompt=json.dumps({"box": BOX}))
        if not self._check(answer, 200):
            return
        choice = json.loads(answer.headers["X-InfoSAM-Choice"])
        made_by = f"{choice['domain']} {choice['version']}"
        self.seen[made_by] += 1
        if choice["domain"] != expected:
            self.wrong.append(f"{name} asked of {asked}: made by {made_by}")
        elif (mask_of(answer) != self._right[made_by, name]).mean() > LAST_BITS:
            self.wrong.append(f"{name}: another mask than that of {made_by}")

    def _check(self, answer: requests.Response, status: int) -> bool:
        """Whether the answer is the expected one; 503 is none, but no fault either."""
        self.seen[str(answer.status_code)] += 1
        if answer.status_code not in (status, 503):
            self.wrong.append(f"{answer.status_code} for {status}: {answer.text[:200]}")
        return answer.status_code == status


def test_a_crowd_with_bad_pictures_and_a_promotion_in_the_middle(
    make_bundle: Callable[..., Path],
    crown: Callable[[str, Path], None],
    own_pictures: Callable[[Mapping[str, Path]], dict[str, NDArray[np.uint8]]],
    tmp_path: Path,
    serve: Callable[..., AbstractContextManager[Any]],
) -> None:
    bundles = {"spores 1": make_bundle(0), "spores 2": make_bundle(1), "negatives 1": make_bundle(0, "negatives")}
    crown("spores", bundles["spores 1"])
    crown("negatives", bundles["negatives 1"])
    break_one(crown, make_bundle(1))
    pictures = own_pictures({name: bundles[f"{name} 1"] for name in ("spores", "negatives")})
    with serve(tmp_path / "home", free_port(), "--follow-s", "0.5", "--max-megapixels", "64") as server:
        crowd = Crowd(server.url, pictures, bundles)
        before, (replica,) = peaks_mib(server.process.pid), replicas_of(server.url)

        def client(number: int) -> None:
            turn = 0
            while turn < 3 or not (crowd.seen["spores 2"] or crowd.wrong):
                crowd.send(number + turn)
                turn += 1

        with ThreadPoolExecutor(CROWD) as clients:
            work = [clients.submit(client, number) for number in range(CROWD)]
            while crowd.seen["spores 1"] < 5 and not crowd.wrong:
                time.sleep(0.05)
            crown("spores", bundles["spores 2"])
            for one in work:
                one.result()
        assert not crowd.wrong, crowd.wrong[:5]
        assert crowd.seen["spores 1"] >= 5
        assert crowd.seen["spores 2"]
        assert crowd.seen["negatives 1"]
        assert {"400", "413"} <= set(crowd.seen), crowd.seen
        after_crowd = peaks_mib(server.process.pid)
        huge = np.zeros((7500, 8000, 3), dtype=np.uint8)
        answer = ask(server.url, as_file(huge), domain="spores")
        assert (answer.status_code, Image.open(io.BytesIO(answer.content)).size) == (200, (8000, 7500))
        check_the_broken_one(server.url, as_file(pictures["spores"]))
        assert requests.get(f"{server.url}/healthz", timeout=60).json() == {"status": "ok", "domains": 2}
        assert replicas_of(server.url) == {replica}, "it was started again"
        after = peaks_mib(server.process.pid)
        print(f"peak MiB: at first {before}, after the crowd {after_crowd}, after 60 megapixels {after}")
        assert after["ProxyActor"] < before["ProxyActor"] + PROXY_MIB
        assert after_crowd["ServeReplica"] < before["ServeReplica"] + REPLICA_MIB
        assert after["ServeReplica"] < before["ServeReplica"] + HUGE_MIB


def break_one(crown: Callable[[str, Path], None], bundle: Path) -> None:
    """The champion of a third domain, which was never whole."""
    from tune.champions.lookup import resolve

    crown("leaf", bundle)
    champion = resolve("leaf")
    assert champion is not None
    (champion / "rest.safetensors").write_bytes(b"torn")


def check_the_broken_one(url: str, content: bytes) -> None:
    listed = {one["domain"]: one for one in requests.get(f"{url}/v1/domains", timeout=60).json()["domains"]}
    assert list(listed) == ["leaf", "negatives", "spores"]
    assert listed["leaf"]["version"] is None
    assert "version 1 cannot be used" in listed["leaf"]["problem"]
    answer = ask(url, content, domain="leaf")
    assert answer.status_code == 503
    assert "version 1 cannot be used" in answer.json()["detail"]
    unknown = ask(url, content, domain="moss")
    assert unknown.status_code == 404
    assert "known domains: leaf, negatives, spores" in unknown.json()["detail"]


def peaks_mib(pid: int) -> dict[str, int]:
    """The most memory that the server's proxy and replica ever took, by the name of their class."""
    found = {}
    for process in descendants(pid):
        with contextlib.suppress(OSError, StopIteration):
            title = Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8")
            status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
            peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
            found |= {name: int(peak) >> 10 for name in ("ProxyActor", "ServeReplica") if name in title}
    assert set(found) == {"ProxyActor", "ServeReplica"}, found
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    below = {pid}
    while found := {child for child, parent in parents.items() if parent in below} - below:
        below |= found
    return sorted(below - {pid})


def replicas_of(url: str, asked: int = 1, **headers: str) -> set[str]:
    """Names of the replicas that answered."""
    texts = [requests.get(f"{url}/metrics", headers=headers, timeout=60).text for _ in range(asked)]
    return {name for text in texts for name in re.findall(r'infosam_domains{replica="([^"]+)"}', text)}


def claimed(width: int, height: int) -> bytes:
    """A PNG of one pixel whose head claims another size."""
    content = bytearray(as_file(np.zeros((1, 1, 3), dtype=np.uint8)))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def ask_endlessly(url: str, mib: int) -> requests.Response:
    """A body in parts that does not say how long it is."""
    parts = itertools.chain([b"--x\r\n"], itertools.repeat(bytes(1 << 20), mib))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return requests.post(f"{url}/v1/mask", data=parts, headers=headers, timeout=120)


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
