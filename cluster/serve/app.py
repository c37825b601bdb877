"""The HTTP interface over a segmenter: paths, their documentation (OpenAPI), and nothing of how masks are made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Response, UploadFile
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cluster.serve.contract import (
    Choice,
    Health,
    Made,
    Mask,
    Offers,
    Problem,
    Segmentation,
    Segmenter,
)
from cluster.serve.figures import Figures
from cluster.serve.guard import Counted, SizeGuard, TokenGuard, token_digest
from cluster.serve.intake import Intake
from cluster.serve.settings import ServeSettings, is_loopback
from infosam import __version__
from infosam.data.card import AUTO, PLAIN
from infosam.errors import DataError, UnknownDomain, UserError
from infosam.mask_codes import coco_of, png_of

CHOICE_HEADER = "X-InfoSAM-Choice"  # a `Choice` as JSON in ASCII
PATHS = ("/v1/segment", "/v1/mask", "/v1/domains", "/healthz", "/metrics")
PAGES = {"/": ("try.html", "text/html"), "/try.js": ("try.js", "text/javascript"), "/try.css": ("try.css", "text/css")}
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
ABOUT = """Segments pictures with adapters of Segment Anything. Without a domain the picture itself decides which one;
plain SAM is used where it looks like none of them."""

ImageField = Annotated[
    UploadFile, File(description="A PNG, JPEG, TIFF, BMP or WEBP file.", json_schema_extra={"format": "binary"})
]
DomainField = Annotated[
    str, Form(description=f"A domain of /v1/domains, `{AUTO}` to let the picture decide, or `{PLAIN}` for plain SAM.")
]
PromptField = Annotated[
    str,
    Form(
        description='What to segment, as JSON: {"box": [x0, y0, x1, y1]} and / or {"points": [[x, y, label], ...]}, '
        "label 1 on the object and 0 beside it, in pixels of the picture. Empty: what the adapter was trained to find.",
        json_schema_extra={"format": "infosam-prompt"},
    ),
]


def _problems(**meanings: str) -> dict[int | str, dict[str, Any]]:
    """Documentation of refusals: `_400="..."`."""
    return {int(code[1:]): {"model": Problem, "description": meaning} for code, meaning in meanings.items()}


DENIED = _problems(_401="No token, or a wrong one.")
REFUSED = DENIED | _problems(
    _400="The picture or the prompt cannot be read.",
    _404="No such domain.",
    _408="The request came too slowly.",
    _413="Too many bytes or pixels.",
    _503="Too much to do; try again later.",
)


def build_app(segmenter: Segmenter, settings: ServeSettings, replica: str) -> FastAPI:
    """The application of one replica."""
    app = FastAPI(title="InfoSAM", version=__version__, description=ABOUT, docs_url=None, redoc_url=None)
    figures = Figures(replica)
    _add_guards(app, settings, figures)
    _add_masks(app, segmenter, Intake(settings.max_pixels), figures)
    _add_state(app, segmenter, figures)
    _add_pages(app)
    return app


def _add_guards(app: FastAPI, settings: ServeSettings, figures: Figures) -> None:
    """The one added last is the first that a request meets."""
    app.add_middleware(SizeGuard, limit=settings.max_upload_bytes)
    app.add_middleware(TokenGuard, digest=None if settings.token is None else token_digest(settings.token))
    if is_loopback(settings.host):
        # A page of a stranger may point a name of its own at 127.0.0.1; what it asks for then bears that name.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", settings.host])
    app.add_middleware(Counted, figures=figures, paths=[*PAGES, *PATHS])


def _add_masks(app: FastAPI, segmenter: Segmenter, intake: Intake, figures: Figures) -> None:
    async def made(image: UploadFile, domain: str, prompt: str) -> Made:
        order = await intake.order(image.file, prompt, domain)
        try:
            result = await segmenter.segment(order)
        except UnknownDomain as error:
            raise HTTPException(404, str(error)) from error
        except DataError as error:
            raise HTTPException(400, str(error)) from error
        except UserError as error:
            raise HTTPException(503, str(error)) from error
        figures.made(result.domain, automatic=order.domain == AUTO)
        return result

    @app.post("/v1/segment", responses=REFUSED, summary="Segment a picture; the mask as COCO run lengths")
    async def segment(image: ImageField, domain: DomainField = AUTO, prompt: PromptField = "") -> Segmentation:
        result = await made(image, domain, prompt)
        coded, area = await asyncio.to_thread(lambda: (coco_of(result.mask), float(result.mask.mean())))
        return Segmentation(**_choice(result).model_dump(), area=area, mask=Mask(**coded))

    @app.post(
        "/v1/mask",
        responses=REFUSED | {200: {"content": {"image/png": {}}, "description": "0 and 255, of the picture's size."}},
        response_class=Response,
        summary="Segment a picture; the mask as a PNG",
    )
    async def mask(image: ImageField, domain: DomainField = AUTO, prompt: PromptField = "") -> Response:
        result = await made(image, domain, prompt)
        headers = {CHOICE_HEADER: json.dumps(_choice(result).model_dump())}
        content = await asyncio.to_thread(png_of, result.mask)  # of a large picture: tenths of a second
        return Response(content, media_type="image/png", headers=headers)


def _add_state(app: FastAPI, segmenter: Segmenter, figures: Figures) -> None:
    @app.get("/v1/domains", responses=DENIED, summary="Domains that can be asked for by name")
    async def domains() -> Offers:
        return Offers(domains=segmenter.offered())

    @app.get("/healthz", responses=_problems(_503="Not ready."), summary="Whether masks can be made")
    async def healthz() -> Health:
        if not segmenter.ready:
            raise HTTPException(503, "the model is not loaded")
        return Health(status="ok", domains=_usable(segmenter))

    @app.get(
        "/metrics",
        responses=DENIED | {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
        response_class=Response,
        summary="Figures of the replica that answers",
    )
    async def metrics() -> Response:
        return Response(figures.text(_usable(segmenter)), media_type="text/plain; version=0.0.4")


def _usable(segmenter: Segmenter) -> int:
    """Domains with an adapter that is in use."""
    return sum(offer.version is not None or offer.problem is None for offer in segmenter.offered())


def _add_pages(app: FastAPI) -> None:
    folder = files("cluster.serve").joinpath("page")
    for path, (name, kind) in PAGES.items():
        app.add_api_route(path, _page(folder.joinpath(name).read_bytes(), kind), include_in_schema=False)


def _page(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, media_type=kind, headers=PAGE_HEADERS)

    return page


def _choice(made: Made) -> Choice:
    return Choice(
        domain=made.domain, version=made.version, score=made.score, threshold=made.threshold, reason=made.reason
    )
