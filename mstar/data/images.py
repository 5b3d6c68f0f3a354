"""Images as bytes become pictures, or one clear message."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from mstar.errors import DataError

MAX_SOURCE_PIXELS = 100_000_000
"""A picture above this is refused before it is decoded: it would cost gigabytes, and no model sees so much."""


def decode_image(data: bytes, owner: str) -> Image.Image:
    """An RGB picture. ``owner`` names the query in the message of the ``DataError`` for a bad image."""
    if not data:
        raise DataError(
            f"query {owner}: the image is missing (no bytes); every query needs one image"
        )
    with opened(data, f"query {owner}") as picture:
        return picture.convert("RGB")


@contextmanager
def opened(data: bytes, owner: str) -> Iterator[Image.Image]:
    """The picture as it is stored, of a size that can be decoded. What Pillow says of it inside is a ``DataError``."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns about decompression bombs up to twice its limit; the size check below decides.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
                if width * height > MAX_SOURCE_PIXELS:
                    raise DataError(_too_large(owner, width, height))
                yield picture
    except UnidentifiedImageError:
        raise DataError(
            f"{owner}: the image is in no known format ({len(data)} bytes, starting {data[:8].hex()}); "
            "expected PNG, JPEG, WebP or another format that Pillow reads"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{owner}: the image is too large; scale it down to {MAX_SOURCE_PIXELS:,} pixels"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{owner}: the image is corrupt ({error}); replace it or drop the query"
        ) from None


def _too_large(owner: str, width: int, height: int) -> str:
    return (
        f"{owner}: the image is too large: {width} x {height} = {width * height:,} pixels, "
        f"the limit is {MAX_SOURCE_PIXELS:,}; scale it down"
    )
