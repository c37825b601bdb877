"""The test images that the adapter made worst, as pictures that a page can hold."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infosam.errors import UserError
from tune.report.gains import PromptGain
from tune.report.record import Record

if TYPE_CHECKING:
    from PIL import Image

WORST = 4
PICTURE_PX = 360
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Regression:
    """One test image, without and with the adapter."""

    image_id: str
    difference: float  # of Dice
    zero_shot: str  # data URI
    adapter: str


def worst_regressions(record: Record, gain: PromptGain | None) -> list[Regression] | str:
    """The images whose Dice fell most under the prompt that decides, worst first, or why there is none to be seen."""
    if gain is None or gain.differences is None:
        return "The worst images are shown once the adapter is scored on the test images."
    rows = [row for row in np.argsort(gain.differences, kind="stable").tolist() if gain.differences[row] < 0][:WORST]
    if not rows:
        return f"No test image lost Dice with {gain.prompted}."
    listed = ", ".join(f"{gain.ids[row]} ({gain.differences[row]:+.3f})" for row in rows)
    if record.bundle is None:
        return f"Worst images: {listed}. The adapter is not in the sweep's folder any more, so they cannot be drawn."
    try:
        return _drawn(record, gain, rows)
    except (UserError, OSError) as error:
        return f"Worst images: {listed}. They cannot be drawn: {error}"


def _drawn(record: Record, gain: PromptGain, rows: list[int]) -> list[Regression]:
    import torch

    from infosam.data.prompts import box_of
    from infosam.data.store import open_dataset
    from infosam.errors import DataError
    from infosam.overlay import draw_overlay
    from infosam.predict import Predictor
    from infosam.prompt_files import ImagePrompt

    assert gain.differences is not None
    assert record.bundle is not None
    store = open_dataset(record.config.data)
    if store.card.digest != record.started.tags.get("data_digest"):
        raise DataError(f"{record.config.data}: holds other images by now")
    model = record.config.run.model
    tuned = Predictor(record.bundle, checkpoint=model.checkpoint, device="cpu")
    untuned = Predictor(model, device="cpu")
    shown = []
    for row in rows:
        sample, prompt = store.read("test", row), None
        if gain.prompt == "box" and sample.mask.any():
            x0, y0, x1, y1 = box_of(torch.from_numpy(sample.mask)).tolist()
            prompt = ImagePrompt(box=(x0, y0, x1, y1))
        pictures = [
            _data_uri(draw_overlay(sample.image, predictor.predict(sample.image, prompt), sample.mask,
                                   prompt.box if prompt else None))
            for predictor in (untuned, tuned)
        ]  # fmt: skip
        shown.append(Regression(gain.ids[row], float(gain.differences[row]), *pictures))
    return shown


def _data_uri(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
