"""One image looked at: can it be decoded, and must it be stored in another way to look the same everywhere.

Programs differ in what they make of a CMYK or 16-bit picture, of transparency, of an animation or of a photograph that
its camera only marked as turned. Such a picture is stored anew, as plain 8-bit RGB; all others stay as they are.
"""

import hashlib
import io
import os
import signal
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

from PIL import Image, ImageOps

from mstar.data.images import opened
from mstar.errors import DataError

ORIENTATION = 0x0112
WITH_ALPHA = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
DEEP = frozenset({"I", "F"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was seen. ``digest`` is of the pixels, so that two files of one picture have the same.

    ``stored`` is the picture to store instead, when ``fixed`` says why; ``problem`` is why it cannot be used at all.
    """

    digest: str = ""
    size: int = 0
    stored: bytes | None = None
    fixed: tuple[str, ...] = ()
    problem: str = ""
    missing: bool = False


def look_at(image: str | bytes) -> Looked:
    """The image at a path, or encoded. Whatever is wrong with it is in the result and raises nothing."""
    try:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Looked(problem="there is no such file", missing=True)
    except OSError as error:
        return Looked(problem=f"it cannot be read: {error.strerror}")
    except ValueError as error:
        return Looked(problem=f"it cannot be read: {error}")
    if not data:
        return Looked(problem="it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture that can be decoded is good enough
            with opened(data, "import") as picture:
                form = picture.format
                plain, fixed = make_plain(picture)
                digest = hashlib.sha256(f"{plain.width} {plain.height} ".encode())
                digest.update(plain.tobytes())
                stored = _encode(plain, form) if fixed else None
    except DataError as error:
        return Looked(problem=str(error).removeprefix("import: the image is ").split(";")[0])
    except Exception as error:  # noqa: BLE001 - what decoders raise on damaged files has no common kind
        return Looked(problem=f"corrupt ({type(error).__name__}: {error})")
    return Looked(digest=digest.hexdigest(), size=len(stored or data), stored=stored, fixed=fixed)


def look_at_all(images: Sequence[str | bytes]) -> list[Looked]:
    """Several at once: what one call of a worker does."""
    return [look_at(image) for image in images]


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
    except Exception:  # noqa: BLE001 - as above; what is broken is told by others
        return ()


def begin_worker() -> None:
    """A worker leaves the keyboard to its parent, and ends when that is gone, also when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _is_turned(picture: Image.Image) -> bool:
    # Asked for what it has not, a PNG is decoded to look behind its pixels.
    return "exif" in picture.info and picture.getexif().get(ORIENTATION, 1) != 1


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
    scale = 255.0 / (high - low)
    return wide.point(lambda value: value * scale - low * scale).convert("L"), True


def _low(channel: Image.Image) -> float:
    low = channel.getextrema()[0]
    assert isinstance(low, int | float)
    return low


def _encode(picture: Image.Image, form: str | None) -> bytes:
    """As it was where that is lossy anyway, else without loss."""
    buffer = io.BytesIO()
    if form in {"JPEG", "MPO"}:
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()
