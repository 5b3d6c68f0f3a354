"""One image looked at: can it be decoded, and must it be stored in another way to look the same everywhere.

Programs differ in what they make of a CMYK or 16-bit picture, of transparency, of an animation or of a photograph that
its camera only marked as turned. Such a picture is stored anew, as plain 8-bit RGB; all others stay as they are.
"""

import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

from PIL import Image

from mstar.data.images import make_plain, opened
from mstar.errors import DataError, WorkerLost


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
        with opened(data, "import") as picture:
            form = picture.format
            plain, fixed = make_plain(picture)
            digest = hashlib.sha256(f"{plain.width} {plain.height} ".encode())
            digest.update(plain.tobytes())
            stored = _encode(plain, form) if fixed else None
    except DataError as error:
        return Looked(problem=str(error).removeprefix("import: the image is ").split(";")[0])
    return Looked(digest=digest.hexdigest(), size=len(stored or data), stored=stored, fixed=fixed)


def look_at_all(images: Sequence[str | bytes]) -> list[Looked]:
    """Several at once: what one call of a worker does."""
    return [look_at(image) for image in images]


def begin_worker() -> None:
    """A worker leaves the keyboard to its parent, and ends when that is gone, also when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def open_pool(workers: int) -> ProcessPoolExecutor:
    """Processes for an import's work."""
    # spawn: a fork of a process with threads, as pyarrow's has, may hang.
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=begin_worker
    )


def killed(doing: str) -> WorkerLost:
    """What a person is told of a pool of which a process, which was ``doing`` something, is gone."""
    return WorkerLost(
        f"a process that {doing} was killed, most likely for want of memory; "
        "start the import again with fewer --workers, it goes on where it was"
    )


def _encode(picture: Image.Image, form: str | None) -> bytes:
    """As it was where that is lossy anyway, else without loss."""
    buffer = io.BytesIO()
    if form in {"JPEG", "MPO"}:
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()
