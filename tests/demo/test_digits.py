"""The pictures: disjoint pools of source digits, and rendering."""

import random

import numpy as np

from mstar.demo.digits import (
    CELL_NAMES,
    POOL_SIZES,
    SIDE,
    TILE,
    Picture,
    digit_pools,
    draw_picture,
    render_image,
    render_pixels,
)


def test_pools_share_no_source_digit_and_cover_all_of_them() -> None:
    pools = digit_pools()
    members = [source for pool in pools.values() for source in pool]
    assert {name: len(pool) for name, pool in pools.items()} == POOL_SIZES
    assert sorted(members) == list(range(1797))


def test_every_pool_has_every_digit() -> None:
    for pool in digit_pools().values():
        seen = {Picture(sources=(source,) * 4, shifts=(4,) * 4).digits[0] for source in pool}
        assert seen == set(range(10))


def test_a_picture_draws_only_from_its_pool() -> None:
    pool = digit_pools()["validation"]
    picture = draw_picture(random.Random(1), pool)
    assert len(picture.sources) == len(CELL_NAMES)
    assert set(picture.sources) <= set(pool)


def test_each_cell_shows_its_own_digit() -> None:
    first, second = digit_pools()["test"][:2]
    alike = render_pixels(Picture(sources=(first,) * 4, shifts=(4,) * 4))
    other = render_pixels(Picture(sources=(first, first, second, first), shifts=(4,) * 4))
    changed = (alike != other).reshape(2, TILE, 2, TILE).any(axis=(1, 3))
    assert changed.tolist() == [[False, False], [True, False]]


def test_an_image_is_a_small_rgb_picture_of_the_pixels() -> None:
    picture = draw_picture(random.Random(2), digit_pools()["train"])
    image = render_image(picture)
    assert (image.mode, image.size) == ("RGB", (SIDE, SIDE))
    assert np.array_equal(np.asarray(image)[..., 0], render_pixels(picture))
    assert np.asarray(image).max() > 200
