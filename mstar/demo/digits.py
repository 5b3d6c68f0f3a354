"""Pictures of four real handwritten digits.

The digits are the 1,797 8x8 grey images that ship inside scikit-learn (a copy of the UCI test
set). They are split by *source image* into disjoint pools,
so no handwritten digit that a model was trained on is ever seen again in validation or test.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

PoolName = Literal["pretrain", "train", "validation", "test"]

CELL_NAMES: tuple[str, ...] = ("top-left", "top-right", "bottom-left", "bottom-right")
"""The cells of the 2x2 grid in reading order; a cell is its index here."""

TILE = 16
"""Side of one cell in pixels: an 8x8 digit, doubled."""

SIDE = 2 * TILE
"""Side of a picture in pixels."""

POOL_SIZES: dict[PoolName, int] = {"pretrain": 1000, "train": 330, "validation": 120, "test": 347}

_SPLIT_SEED = 0
_SHIFTS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Which four digits fill the grid, and by how much each is moved.

    `sources` index the 1,797 digits, `shifts` the nine moves of at most one pixel a side.
    """

    sources: tuple[int, ...]
    shifts: tuple[int, ...]

    @property
    def digits(self) -> tuple[int, ...]:
        """The digit written in each cell, 0 to 9, in reading order."""
        labels = _labels()
        return tuple(int(labels[source]) for source in self.sources)


def digit_pools() -> dict[PoolName, tuple[int, ...]]:
    """Split the source digits into disjoint pools; always the same split."""
    order = list(range(len(_labels())))
    random.Random(_SPLIT_SEED).shuffle(order)
    pools: dict[PoolName, tuple[int, ...]] = {}
    start = 0
    for name, size in POOL_SIZES.items():
        pools[name] = tuple(order[start : start + size])
        start += size
    return pools


def draw_picture(rng: random.Random, pool: Sequence[int]) -> Picture:
    """Draw four digits of the pool, with replacement, each moved by at most one pixel."""
    return Picture(
        sources=tuple(rng.choice(pool) for _ in CELL_NAMES),
        shifts=tuple(rng.randrange(len(_SHIFTS)) for _ in CELL_NAMES),
    )


def render_pixels(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return the picture as grey levels, shape (32, 32), 0 black to 255 white."""
    tiles = known_tiles()[list(picture.sources), list(picture.shifts)]
    return tiles.reshape(2, 2, TILE, TILE).transpose(0, 2, 1, 3).reshape(SIDE, SIDE)


def render_image(picture: Picture) -> Image.Image:
    """Return the picture as a 32x32 RGB image."""
    return Image.fromarray(render_pixels(picture)).convert("RGB")


@functools.cache
def _load() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    # Imported here: scikit-learn takes a second to import and most of the package needs no pixels.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target


def _labels() -> npt.NDArray[np.int64]:
    return _load()[1]


@functools.cache
def known_tiles() -> npt.NDArray[np.uint8]:
    """Every digit under every shift, shape (1797, 9, 16, 16)."""
    grey = np.kron(_load()[0], np.ones((1, 2, 2))) * (255 / 16)
    doubled = grey.clip(0, 255).astype(np.uint8)
    return np.stack([np.roll(doubled, shift, (1, 2)) for shift in _SHIFTS], axis=1)
