"""InternVL's tiles: an image becomes a grid of squares, in the grid of the nearest shape, and a small copy."""

from __future__ import annotations

import torch
from PIL import Image

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which InternVL was trained with."""


def choose_grid(size: tuple[int, int], *, side: int, fewest: int, most: int) -> tuple[int, int]:
    """Columns and rows of the ``fewest`` to ``most`` tiles whose shape is nearest to the image's.

    Of grids that are equally near, the larger is taken while the image has more than half of its pixels.
    """
    width, height = size
    shape = width / height
    grids = [
        (columns, rows)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if fewest <= columns * rows <= most
    ]
    best, nearest = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        away = abs(shape - columns / rows)
        large_enough = width * height > 0.5 * side * side * columns * rows
        if away < nearest or (away == nearest and large_enough):
            best, nearest = (columns, rows), away
    return best


def count_tiles(
    size: tuple[int, int], *, side: int, fewest: int, most: int, thumbnail: bool
) -> int:
    """How many tiles ``cut_tiles`` makes of an image of (width, height) pixels."""
    columns, rows = choose_grid(size, side=side, fewest=fewest, most=most)
    return columns * rows + int(thumbnail and columns * rows > 1)


def cut_tiles(
    image: Image.Image, *, side: int, fewest: int, most: int, thumbnail: bool
) -> torch.Tensor:
    """Normalised tiles (count, 3, side, side), row by row; with ``thumbnail`` the whole image last, if it was cut."""
    image = image.convert("RGB")
    columns, rows = choose_grid(image.size, side=side, fewest=fewest, most=most)
    whole = image.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
    tiles = [
        whole.crop((side * column, side * row, side * (column + 1), side * (row + 1)))
        for row in range(rows)
        for column in range(columns)
    ]
    if thumbnail and len(tiles) > 1:
        tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
    return torch.stack([_normalise(tile) for tile in tiles])


def _normalise(tile: Image.Image) -> torch.Tensor:
    pixels = torch.frombuffer(bytearray(tile.tobytes()), dtype=torch.uint8)
    scaled = pixels.reshape(tile.height, tile.width, 3).permute(2, 0, 1).float() / 255
    mean, spread = (torch.tensor(values)[:, None, None] for values in (MEAN, SPREAD))
    return (scaled - mean) / spread
