"""The HTTP interface over a segmenter that only cuts at a brightness, so that every answer is known."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from brightness import Brightness
from PIL import Image
from starlette.testclient import TestClient

from cluster.serve.app import CHOICE_HEADER, build_app
from cluster.serve.settings import ServeSettings
from infosam.data.card import PLAIN

TOKEN = "a-token-nobody-would-guess"
PICTURE = np.zeros((12, 20, 3), dtype=np.uint8)
PICTURE[3:7, 5:15] = 255


@pytest.fixture
def segmenter() -> Brightness:
    return Brightness()


def client_of(segmenter: Brightness, **settings: Any) -> TestClient:
    return TestClient(
        build_app(segmenter, ServeSettings(**settings), "r1"),
        base_url="http://127.0.0.1",
        raise_server_exceptions=False,
    )


@pytest.fixture
def client(segmenter: Brightness) -> Iterator[TestClient]:
    with client_of(segmenter) as client:
        yield client


def encoded(rgb: np.ndarray[Any, Any] = PICTURE, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, format=kind)
    return stream.getvalue()


def ask(client: TestClient, content: bytes, path: str = "/v1/segment", **fields: str) -> Any:
    return client.post(path, files={"image": ("picture.png", content, "image/png")}, data=fields)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own arrays
def test_a_mask_comes_as_coco_run_lengths_with_the_choice(client: TestClient) -> None:
    from pycocotools.mask import decode

    answer = ask(client, encoded())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["domain"], body["score"], body["threshold"]) == ("bright", 0.25, 1.0)
    assert np.array_equal(decode(body["mask"]), PICTURE[..., 0] > 127)
    assert body["area"] == pytest.approx(40 / 240)


def test_a_mask_comes_as_a_png_with_the_choice_in_a_header(client: TestClient) -> None:
    answer = ask(client, encoded(), "/v1/mask", domain=PLAIN)
    assert answer.headers["content-type"] == "image/png"
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.array_equal(mask, (PICTURE[..., 0] > 127) * 255)
    choice = json.loads(answer.headers[CHOICE_HEADER])
    assert choice["domain"] is None
    assert choice["reason"] == "as bright as day: éclat"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_the_usual_kinds_of_picture_are_read(client: TestClient, kind: str) -> None:
    assert ask(client, encoded(kind=kind)).json()["mask"]["size"] == [12, 20]


def test_prompts_and_domain_reach_the_segmenter(client: TestClient, segmenter: Brightness) -> None:
    answer = ask(client, encoded(), domain="bright", prompt='{"box": [1, 2, 10, 8], "points": [[3, 4, 1]]}')
    assert answer.status_code == 200
    order = segmenter.orders[-1]
    assert order.domain == "bright"
    assert order.prompt is not None
    assert order.prompt.box == (1.0, 2.0, 10.0, 8.0)
    assert order.prompt.points == ((3.0, 4.0, 1),)


def test_without_a_domain_the_picture_decides(client: TestClient, segmenter: Brightness) -> None:
    ask(client, encoded())
    assert segmenter.orders[-1].domain == "auto"
    assert segmenter.orders[-1].prompt is None


def claimed(width: int, height: int) -> bytes:
    """A PNG whose head claims a size and that has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "cannot be read"),
        (b"GIF89a not really", 400, "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", 400, "cannot be read"),
        (encoded()[:60], 400, "cannot be read"),
        (claimed(0, 0), 400, "cannot be read"),
        (claimed(30000, 30000), 413, "megapixels"),
        (claimed(2**31 - 1, 2**31 - 1), 413, "megapixels"),
    ],
    ids=["empty", "GIF", "PostScript", "cut off", "no pixels", "too large", "absurd"],
)
def test_bad_pictures_are_refused(
    client: TestClient, segmenter: Brightness, content: bytes, status: int, words: str
) -> None:
    answer = ask(client, content)
    assert answer.status_code == status
    assert words in answer.json()["detail"]
    assert not segmenter.orders


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "expected"),
        ('{"box": [5, 5, 2, 2]}', "no area"),
        ('{"box": [0, 0, 500, 5]}', "outside"),
        ('{"points": [[1, 1, 7]]}', "label"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_prompts_are_refused(client: TestClient, prompt: str, words: str) -> None:
    answer = ask(client, encoded(), prompt=prompt)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_a_request_without_a_picture_names_the_field(client: TestClient) -> None:
    answer = client.post("/v1/segment", data={"domain": "auto"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "image"]


def test_an_unknown_domain_is_not_found(client: TestClient) -> None:
    answer = ask(client, encoded(), domain="polyps")
    assert answer.status_code == 404
    assert "known domains: bright" in answer.json()["detail"]


def test_a_broken_adapter_is_no_fault_of_the_client(client: TestClient) -> None:
    answer = ask(client, encoded(), domain="broken")
    assert answer.status_code == 503
    assert "damaged" in answer.json()["detail"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(segmenter: Brightness, announced: bool) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(40):
            yield bytes(2**16)

    body: Any = b"".join(chunks()) if announced else chunks()
    with client_of(segmenter, max_upload_mib=1) as client:
        answer = client.post("/v1/segment", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413, answer.text
    assert "1 MiB" in answer.json()["detail"]


def test_a_token_is_asked_of_whoever_wants_masks_domains_or_figures(segmenter: Brightness) -> None:
    with client_of(segmenter, token=TOKEN) as client:
        for path in ("/v1/domains", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get(path, headers={"Authorization": b"Bearer \xe9"}).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert ask(client, encoded()).status_code == 401
        assert client.get("/healthz").status_code == 200
        assert client.get("/").status_code == 200
    assert not segmenter.orders


def test_the_token_is_in_no_text_of_the_settings() -> None:
    assert TOKEN not in repr(ServeSettings(token=TOKEN))


def test_a_stranger_s_name_for_this_machine_is_refused(client: TestClient) -> None:
    assert client.get("/v1/domains", headers={"host": "rebound.example"}).status_code == 400


def test_domains_are_listed_with_what_is_wrong(client: TestClient) -> None:
    first, second = client.get("/v1/domains").json()["domains"]
    assert first == {"domain": "bright", "version": "3", "automatic": True, "problem": None}
    assert "damaged" in second["problem"]


def test_figures_count_answers_and_masks_by_domain(client: TestClient) -> None:
    ask(client, encoded())
    ask(client, encoded(), domain=PLAIN)
    ask(client, b"no picture")
    client.get("/of/nobody")
    client.get("/of/another")
    text = client.get("/metrics").text
    assert 'infosam_masks_total{domain="bright",replica="r1"} 1.0' in text
    assert 'infosam_masks_total{domain="(plain SAM)",replica="r1"} 1.0' in text
    assert 'infosam_requests_total{path="/v1/segment",replica="r1",status="400"} 1.0' in text
    assert 'infosam_requests_total{path="(other)",replica="r1",status="404"} 2.0' in text
    assert 'infosam_domains{replica="r1"} 1.0' in text


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("/", "/try.js", "/try.css"):
        assert "http://" not in client.get(path).text.replace("http://www.w3.org", "")
        assert "https://" not in client.get(path).text


def test_not_ready_is_said(segmenter: Brightness) -> None:
    segmenter.ready = False
    with client_of(segmenter) as client:
        assert client.get("/healthz").status_code == 503
