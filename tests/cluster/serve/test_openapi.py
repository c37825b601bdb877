"""The server does what its OpenAPI document says, whatever it is sent (Schemathesis makes that up)."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import schemathesis
from brightness import Brightness
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.specs.openapi.checks import negative_data_rejection

from cluster.serve.app import build_app
from cluster.serve.settings import ServeSettings

TOKEN = "a-token-nobody-would-guess"
APP = build_app(Brightness(), ServeSettings(host="0.0.0.0", max_upload_mib=1), "r1")
GUARDED = build_app(Brightness(), ServeSettings(host="0.0.0.0", token=TOKEN), "r1")
SIDE_PX = 8


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((SIDE_PX, SIDE_PX, 3), value, dtype=np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


# What a schema cannot say: which bytes are a picture, and which text is a prompt inside it.
BOXES = st.lists(st.integers(0, SIDE_PX - 1), min_size=4, max_size=4).map(
    lambda sides: [*map(min, sides[:2], sides[2:]), *map(max, sides[:2], sides[2:])]
)
schemathesis.openapi.format("binary", st.integers(0, 255).map(picture))
schemathesis.openapi.format("infosam-prompt", BOXES.map(lambda box: json.dumps({"box": box})) | st.just(""))
open_api = schemathesis.openapi.from_asgi("/openapi.json", APP)
guarded_api = schemathesis.openapi.from_asgi("/openapi.json", GUARDED)


@open_api.parametrize()
@settings(max_examples=40, derandomize=True, deadline=None)
def test_answers_are_those_of_the_document(case: Any) -> None:
    # A form has no types: what breaks the schema by its type arrives as text, or not at all, and is none of our fault.
    case.call_and_validate(excluded_checks=[negative_data_rejection])


@guarded_api.parametrize()
@settings(max_examples=10, derandomize=True, deadline=None)
def test_without_a_token_nothing_else_is_answered(case: Any) -> None:
    answer = case.call()
    assert (answer.status_code == 401) is (case.path != "/healthz")


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/mask"])
def test_every_refusal_is_documented(path: str) -> None:
    documented = open_api.raw_schema["paths"][path]["post"]["responses"]
    assert {"200", "400", "401", "404", "408", "413", "422", "503"} <= set(documented)
