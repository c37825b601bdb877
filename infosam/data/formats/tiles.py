"""Where the tiles of a picture lie."""

from __future__ import annotations

from infosam.data.formats.contract import Box


def boxes(size: tuple[int, int], tile: int | None, overlap: int) -> list[Box]:
    """Tiles of `tile` px a side that cover a picture of `size` (H, W), row by row; the whole picture without `tile`.

    Neighbours share `overlap` px. The last tile of a row or column ends at the border, so all are of one size, and it
    shares more; a side shorter than a tile is not cut."""
    if tile is None:
        return [Box(0, 0, *size)]
    height, width = size
    return [
        Box(top, left, min(tile, height), min(tile, width))
        for top in _starts(height, tile, overlap)
        for left in _starts(width, tile, overlap)
    ]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    last = max(0, length - tile)
    return [*range(0, last, tile - overlap), last]
