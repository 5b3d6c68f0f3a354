"""Images as bytes become pictures, as a person sees them, or one clear message.

Programs differ in what they make of a CMYK or 16-bit picture, of transparency, of an animation or of a photograph that
its camera only marked as turned. Here all of them become plain 8-bit RGB in one way, for every engine and stage, and
``mstarctl data import`` stores what a run would see.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

from mstar.errors import DataError

MAX_SOURCE_PIXELS = 100_000_000
"""A picture above this is refused before it is decoded: it would cost gigabytes, and no model sees so much."""

ORIENTATION = 0x0112
WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
DEEP = frozenset({"I", "F"})


def decode_image(data: bytes, owner: str) -> Image.Image:
    """An RGB picture. ``owner`` names the query in the message of the ``DataError`` for a bad image."""
    if not data:
        raise DataError(
            f"query {owner}: the image is missing (no bytes); every query needs one image"
        )
    with opened(data, f"query {owner}") as picture:
        return make_plain(picture)[0]


@contextmanager
def opened(data: bytes, owner: str) -> Iterator[Image.Image]:
    """The picture as it is stored, of a size that can be decoded. What Pillow says of it inside is a ``DataError``."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of bombs up to twice its limit, where the size check below decides, and of oddities in a
            # file's notes; a picture that can be decoded is good enough.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as picture:
                _check_size(owner, *picture.size)
                yield picture
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{owner}: the image is in no known format ({len(data)} bytes, starting {data[:8].hex()}); "
            "expected PNG, JPEG, WebP or another format that Pillow reads"
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{owner}: the image is too large; scale it down to {MAX_SOURCE_PIXELS:,} pixels"
        ) from None
    except Exception as error:  # noqa: BLE001 - what decoders raise on damaged files has no common kind
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{owner}: the image is corrupt ({reason}); replace it or drop the query"
        ) from None


def make_plain(picture: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in RGB as a person sees it, and what had to be done for that beyond a plain conversion."""
    fixed = []
    if getattr(picture, "is_animated", False):
        fixed.append("animated: its first frame")
        picture.seek(0)
    if _is_turned(picture):
        fixed.append("turned: upright")
        picture = ImageOps.exif_transpose(picture)
    if picture.mode == "CMYK":
        fixed.append("CMYK: RGB")
    elif picture.mode.startswith("I;16") or picture.mode in DEEP:
        picture, changed = _shallow(picture)
        fixed += ["16-bit: 8-bit"] if changed else []
    elif picture.mode in WITH_ALPHA or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        if _low(seen.getchannel("A")) < 255:
            fixed.append("transparent: on white")
            picture = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
        else:
            picture = seen
    if picture.mode == "RGB":
        picture.load()  # a conversion would copy it
        return picture, tuple(fixed)
    return picture.convert("RGB"), tuple(fixed)


def oddities(data: bytes) -> tuple[str, ...]:
    """What ``make_plain`` would have to do with an image, from its head alone; nothing for one that is broken."""
    try:
        with opened(data, "check") as picture:
            names = []
            if getattr(picture, "is_animated", False):
                names.append("animated")
            if _is_turned(picture):
                names.append("turned")
            if picture.mode == "CMYK":
                names.append("CMYK")
            if picture.mode.startswith("I;16") or picture.mode in DEEP:
                names.append("16-bit")
            if picture.mode in WITH_ALPHA or "transparency" in picture.info:
                names.append("transparent")
            return tuple(names)
    except DataError:  # what is broken is told by others
        return ()


def _is_turned(picture: Image.Image) -> bool:
    # Asked for what it has not, a PNG is decoded to look behind its pixels.
    if "exif" not in picture.info:
        return False
    try:
        return bool(picture.getexif().get(ORIENTATION, 1) != 1)
    except Exception:  # noqa: BLE001 - damaged notes have no common kind, and a picture is good without them
        return False


def _shallow(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Eight bits of a deeper picture. A plain conversion would cut all that is brighter than 255 to white."""
    deep = picture.mode.startswith("I;16")
    wide = picture.convert("F")
    low, high = wide.getextrema()
    assert isinstance(low, float)
    assert isinstance(high, float)
    if not deep and low >= 0 and high <= 255:
        return wide.convert("L"), False
    if deep or (low >= 0 and high <= 65535):
        low, high = 0.0, 65535.0
    scale = 255.0 / ((high - low) or 1.0)
    return wide.point(lambda value: value * scale - low * scale).convert("L"), True


def _low(channel: Image.Image) -> float:
    low = channel.getextrema()[0]
    assert isinstance(low, int | float)
    return low


def check_image(
    data: bytes, owner: str, most: int | None, option: str = "execution.max_pixels"
) -> Image.Image:
    """``decode_image``, and a ``DataError`` also for a picture of more than ``most`` pixels; ``option`` raises them."""
    picture = decode_image(data, owner)
    if most is not None and picture.width * picture.height > most:
        raise DataError(over_limit(owner, picture.size, most, option))
    return picture


def over_limit(
    query_id: str, size: tuple[int, int], most: int, option: str = "execution.max_pixels"
) -> str:
    """What is told of an image above ``execution.max_pixels``, by the check of a data set and by a run."""
    width, height = size
    return (
        f"query {query_id}: the image has {width} x {height} = {width * height} pixels; at most {most} are taken. "
        f"Shrink the image, or raise {option}."
    )


def _check_size(owner: str, width: int, height: int) -> None:
    if width * height > MAX_SOURCE_PIXELS:
        raise DataError(
            f"{owner}: the image is too large: {width} x {height} = {width * height:,} pixels, "
            f"the limit is {MAX_SOURCE_PIXELS:,}; scale it down"
        )
