"""Responses on disk: one JSON line each, written as they come, so that an interrupted evaluation goes on.

The first line says what was asked of whom; a file whose first line says something else is never mixed with this one.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mstar.errors import ConflictError, IntegrityError
from mstar.storage.faults import explained

BLOCK = 1 << 20


class Answers:
    """The responses of one model to one benchmark, by question id. Use as a context manager; ``add`` is durable."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._identity = dict(identity)
        self.texts: dict[str, str] = {}

    def __enter__(self) -> Self:
        with explained("write", self._path):
            whole = self._load()
            self._file = self._path.open("ab")
            self._file.truncate(whole)
        if not whole:
            self._append([{"asked": self._identity}])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, found: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """Keep responses: question id, text, and what else is worth knowing of each."""
        self._append([{"id": name, "text": text, **more} for name, text, more in found])
        self.texts |= {name: text for name, text, _ in found}

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        with explained("write", self._path):
            for line in lines:
                self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _load(self) -> int:
        """Read what is there; bytes up to the end of the last whole line, a half-written one being dropped."""
        if not self._path.is_file():
            return 0
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        if not lines:
            return 0
        try:
            asked = json.loads(lines[0])["asked"]
            texts = [json.loads(line) for line in lines[1:]]
            self.texts = {body["id"]: body["text"] for body in texts}
        except (ValueError, KeyError, TypeError):
            raise IntegrityError(
                f"{self._path} is no file of answers; remove it, or write to another folder (--out)"
            ) from None
        differing = [key for key in self._identity if asked.get(key) != self._identity[key]]
        if differing:
            raise ConflictError(
                f"{self._path} holds answers to something else: {', '.join(differing)} differ; "
                "write to another folder (--out), or remove the file"
            )
        return whole


def tokens_in(path: Path) -> int:
    """Tokens of all the responses in a file of answers."""
    with path.open("rb") as lines:
        return sum(int(json.loads(line).get("tokens", 0)) for line in lines)


def file_digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a folder, by its name there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): digest([file]) for file in files}


def fingerprint(files: Mapping[str, str]) -> str:
    """What tells one model folder from another: each file's name and every byte; two policies may differ in few."""
    text = "".join(f"{name}\n{content}\n" for name, content in files.items())
    return hashlib.sha256(text.encode()).hexdigest()


def weights_digest(files: Mapping[str, str]) -> str | None:
    """The fingerprint of the ``*.safetensors`` alone, None without any: a copy with another card has the same."""
    weights = {name: files[name] for name in sorted(files) if name.endswith(".safetensors")}
    return fingerprint(weights) if weights else None


def digest(files: Sequence[Path]) -> str:
    """The sha256 of files one after the other."""
    found = hashlib.sha256()
    for path in files:
        with explained("read", path), path.open("rb") as stream:
            while block := stream.read(BLOCK):
                found.update(block)
    return found.hexdigest()
