"""Every image of an import once: looked at by several processes, noted down as it is done, never looked at again.

The notes (``images.jsonl``) outlive the process: an import that goes on reads them and looks at the rest. Pictures that
have no file of their own, or were stored anew, lie one behind another in ``images.bin``.
"""

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mstar.data.importing.pictures import Looked, killed, look_at_all, open_pool
from mstar.data.importing.records import Tell

AT_ONCE = 8
"""Images a call of a worker: enough that calling it costs nothing beside decoding."""

AHEAD = 3
"""Calls that wait for each worker."""

Image = str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one image; ``start`` is where ``images.bin`` has it, None when it is a file of its own."""

    digest: str = ""
    size: int = 0
    start: int | None = None
    fixed: tuple[str, ...] = ()
    problem: str = ""
    missing: bool = False


class Gallery:
    """Images by number, in the order in which they were first asked for. A context; ``finish`` waits for all."""

    def __init__(self, folder: Path, workers: int, tell: Tell) -> None:
        self.seen: list[Seen | None] = []
        self.paths: list[str | None] = []
        self.resumed = 0
        self.blob = folder / "images.bin"
        self._tell = tell
        self._numbers: dict[str, int] = {}
        self._done = 0
        self._batch: list[tuple[int, str, Image, list[int]]] = []
        self._running: deque[tuple[list[tuple[int, str, Image, list[int]]], Future[Any]]] = deque()
        self._ahead = workers * AHEAD
        self._pool = open_pool(workers) if workers > 1 else None
        self._noted = _read_notes(folder / "images.jsonl", self.blob)
        self._blob = self.blob.open("ab")
        # A line that a killed process left half written is ended here, so that it spoils no other.
        self._notes = (folder / "images.jsonl").open("a", encoding="utf-8")
        self._notes.write("\n")

    def ask(self, image: Image) -> int:
        """The number of an image; it is looked at soon when that was not done yet."""
        key = image if isinstance(image, str) else "sha256:" + hashlib.sha256(image).hexdigest()
        number = self._numbers.get(key)
        if number is not None:
            return number
        number = self._numbers[key] = len(self.seen)
        self.seen.append(None)
        self.paths.append(image if isinstance(image, str) else None)
        stamp = _stamp(image)
        noted = self._noted.pop(key, None)
        if noted is not None and noted[0] == stamp and not noted[1].missing:
            self.seen[number] = noted[1]
            self.resumed += 1
            self._count(1)
            return number
        self._batch.append((number, key, image, stamp))
        if len(self._batch) >= AT_ONCE:
            self._send()
        return number

    def finish(self) -> list[Seen]:
        """All images, by number."""
        if self._batch:
            self._send()
        while self._running:
            self._take()
        return [seen for seen in self.seen if seen is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
        self._notes.close()
        self._blob.close()

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        images = [image for _, _, image, _ in batch]
        if self._pool is None:
            self._note(batch, look_at_all(images))
            return
        while len(self._running) >= self._ahead:
            self._take()
        try:
            self._running.append((batch, self._pool.submit(look_at_all, images)))
        except BrokenProcessPool:
            raise killed("decodes images") from None

    def _take(self) -> None:
        batch, future = self._running.popleft()
        try:
            found = future.result()
        except BrokenProcessPool:
            raise killed("decodes images") from None
        self._note(batch, found)

    def _note(
        self, batch: Sequence[tuple[int, str, Image, list[int]]], found: Sequence[Looked]
    ) -> None:
        lines = []
        for (number, key, image, stamp), looked in zip(batch, found, strict=True):
            start = None
            data = looked.stored or (image if isinstance(image, bytes) else None)
            if data is not None and not looked.problem:
                start = self._blob.tell()
                self._blob.write(data)
            seen = Seen(
                digest=looked.digest,
                size=looked.size,
                start=start,
                fixed=looked.fixed,
                problem=looked.problem,
                missing=looked.missing,
            )
            self.seen[number] = seen
            facts = {name: getattr(seen, name) for name in Seen.__slots__}
            lines.append(json.dumps({"image": key, "stamp": stamp, **facts}) + "\n")
        # First the pictures: a note says that they are there.
        self._blob.flush()
        self._notes.writelines(lines)
        self._notes.flush()
        self._count(len(batch))

    def _count(self, more: int) -> None:
        self._done += more
        self._tell(self._done, len(self.seen), "images")


def _stamp(image: Image) -> list[int]:
    """What changes when a file does."""
    if isinstance(image, bytes):
        return [len(image)]
    try:
        found = Path(image).stat()
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns]


def _read_notes(path: Path, blob: Path) -> dict[str, tuple[list[int], Seen]]:
    """Notes by image; those whose picture is not in the blob are left out."""
    if not path.exists():
        return {}
    there = blob.stat().st_size if blob.exists() else 0
    noted = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                note = json.loads(line)
                facts = {name: note[name] for name in Seen.__slots__}
                key, stamp = note["image"], note["stamp"]
            except (ValueError, KeyError, TypeError):
                continue
            seen = Seen(**facts | {"fixed": tuple(facts["fixed"])})
            if seen.start is None or seen.start + seen.size <= there:
                noted[key] = (stamp, seen)
    return noted
