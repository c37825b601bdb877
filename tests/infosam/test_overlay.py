from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from infosam.overlay import BOX_COLOUR, PREDICTION_COLOUR, TRUTH_COLOUR, contact_sheet, draw_overlay

GREY = np.full((40, 60, 3), 100, np.uint8)


def block(top: int, left: int, bottom: int, right: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros((40, 60), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_prediction_is_filled_and_outlined_and_the_rest_untouched() -> None:
    drawn = np.asarray(draw_overlay(GREY, block(10, 10, 30, 40)))
    assert drawn.shape == GREY.shape
    assert tuple(drawn[10, 10]) == PREDICTION_COLOUR
    assert tuple(drawn[20, 20]) not in (PREDICTION_COLOUR, (100, 100, 100))
    assert (drawn[~block(10, 10, 30, 40)] == 100).all()
    assert (GREY == 100).all()


def test_truth_is_an_outline_and_the_box_a_frame() -> None:
    drawn = np.asarray(draw_overlay(GREY, block(0, 0, 0, 0), block(10, 10, 30, 40), box=[5, 5, 50, 35]))
    assert tuple(drawn[10, 25]) == TRUTH_COLOUR
    assert tuple(drawn[20, 25]) == (100, 100, 100)
    assert [tuple(drawn[y, x]) for y, x in ((5, 5), (35, 50), (5, 30), (20, 50))] == [BOX_COLOUR] * 4
    assert tuple(drawn[36, 51]) == (100, 100, 100)


def test_empty_and_full_masks_can_be_drawn() -> None:
    assert (np.asarray(draw_overlay(GREY, block(0, 0, 0, 0), block(0, 0, 0, 0))) == 100).all()
    assert (np.asarray(draw_overlay(GREY, block(0, 0, 40, 60))) != 100).any(axis=2).all()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"truth has shape \(4, 4\)"):
        draw_overlay(GREY, block(0, 0, 1, 1), np.zeros((4, 4), bool))


def test_a_sheet_has_room_for_every_picture_and_caption() -> None:
    red, wide = Image.new("RGB", (30, 30), (255, 0, 0)), Image.new("L", (80, 20), 0)
    sheet = np.asarray(contact_sheet([[red, wide], [red]], ["truth", "prediction"], row_captions=["one"], cell_px=64))
    plain = np.asarray(contact_sheet([[red, wide], [red]], cell_px=64))
    assert sheet.shape[0] > plain.shape[0]
    assert sheet.shape[1] == plain.shape[1] > 2 * 64
    assert (plain == (255, 0, 0)).all(axis=2).sum() == 2 * 64 * 64
    assert (plain == (0, 0, 0)).all(axis=2).sum() == 64 * 16


def test_long_captions_are_cut() -> None:
    cell = Image.new("RGB", (64, 64))
    text = "a caption that is far too long for such a narrow cell"
    pair = np.asarray(contact_sheet([[cell, cell]], [text], cell_px=64))
    assert (pair[:20, 72:] == 255).all()


def test_a_sheet_of_nothing_or_with_too_many_captions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([[]])
    with pytest.raises(ValueError, match="2 captions"):
        contact_sheet([[Image.new("RGB", (8, 8))]], ["a", "b"])
