"""Pictures of masks for people: prediction filled, truth outlined, box drawn, and sheets of several such pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# Okabe-Ito colours: told apart with any kind of colour vision, and rare in photographs.
PREDICTION_COLOUR = (230, 159, 0)
TRUTH_COLOUR = (86, 180, 233)
BOX_COLOUR = (255, 255, 255)
FILL_OPACITY = 0.45
CAPTION_PX = 22
GAP_PX = 4


def draw_overlay(
    rgb: NDArray[np.uint8],
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None = None,
    box: Sequence[float] | None = None,
) -> Image.Image:
    """An image (H, W, 3) with a predicted mask (H, W) in orange, the truth as blue outline and the box in white.

    `box` is x0, y0, x1, y1 in pixels of the image. Lines grow with the image. Raises ValueError for other sizes."""
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask is not None and mask.shape != rgb.shape[:2]:
            raise ValueError(f"{name} has shape {mask.shape}, the image is {rgb.shape[:2]}")
    line_px = max(1, round(max(rgb.shape[:2]) / 256))
    picture = rgb.copy()
    inside = prediction.astype(bool)
    filled = (1 - FILL_OPACITY) * rgb[inside] + FILL_OPACITY * np.array(PREDICTION_COLOUR)
    picture[inside] = filled.round().astype(np.uint8)
    picture[_outline(inside, line_px)] = PREDICTION_COLOUR
    if truth is not None:
        picture[_outline(truth.astype(bool), line_px)] = TRUTH_COLOUR
    image = Image.fromarray(picture)
    if box is not None:
        x0, y0, x1, y1 = (float(side) for side in box)
        ImageDraw.Draw(image).rectangle((x0, y0, x1, y1), outline=BOX_COLOUR, width=line_px)
    return image


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[str] = (),
    *,
    row_captions: Sequence[str] = (),
    cell_px: int = 256,
) -> Image.Image:
    """Pictures in a grid of cells with the longest side `cell_px`: `captions` head the columns, `row_captions` stand
    above each row. Rows may differ in length. Raises ValueError without pictures or with too many captions."""
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("a contact sheet needs at least one picture")
    if len(captions) > columns or len(row_captions) > len(rows):
        raise ValueError(
            f"{len(captions)} captions and {len(row_captions)} row captions for {columns} columns and {len(rows)} rows"
        )
    head_px = CAPTION_PX if captions else 0
    row_head_px = CAPTION_PX if row_captions else 0
    step_x, step_y = cell_px + GAP_PX, cell_px + row_head_px + GAP_PX
    sheet = Image.new("RGB", (columns * step_x + GAP_PX, head_px + len(rows) * step_y + GAP_PX), (255, 255, 255))
    for column, text in enumerate(captions):
        _write(sheet, text, GAP_PX + column * step_x, 0, cell_px)
    for number, row in enumerate(rows):
        top = head_px + GAP_PX + number * step_y
        if number < len(row_captions):
            _write(sheet, row_captions[number], GAP_PX, top, columns * step_x - GAP_PX)
        for column, picture in enumerate(row):
            _place(sheet, picture, GAP_PX + column * step_x, top + row_head_px, cell_px)
    return sheet


def _outline(mask: NDArray[np.bool_], line_px: int) -> NDArray[np.bool_]:
    """Foreground pixels within `line_px` of the background; the edge of the image is no boundary."""
    inner = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(2 * line_px + 1))
    outline: NDArray[np.bool_] = mask & (np.asarray(inner) == 0)
    return outline


def _place(sheet: Image.Image, picture: Image.Image, left: int, top: int, cell_px: int) -> None:
    scale = cell_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Enlarged pixels stay sharp: a small mask should look like what it is.
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    small = picture.convert("RGB").resize(size, resample)
    sheet.paste(small, (left + (cell_px - size[0]) // 2, top + (cell_px - size[1]) // 2))


def _write(sheet: Image.Image, text: str, left: int, top: int, width: int) -> None:
    """One line of text, cut with an ellipsis where the cell ends."""
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)
    shown = text
    while shown and draw.textlength(shown if shown == text else shown + "...", font=font) > width:
        shown = shown[:-1]
    draw.text((left, top + 2), shown if shown == text else shown + "...", fill=(0, 0, 0), font=font)
