"""Writing artifacts: parts first, then the manifest, created by exactly one writer.

A step's parts go into the folder of one attempt, so attempts never touch each other's; the first to create the
manifest has committed the step, and any other discards its parts and takes the winner's manifest.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mstar.errors import DataError, IntegrityError, ModelError, StorageError
from mstar.storage import keys
from mstar.storage.faults import explained
from mstar.storage.manifest import ArtifactKind, Manifest, Part, canonical_json, sha256
from mstar.storage.reading import parse_manifest, read_manifest
from mstar.storage.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The committed manifest. ``won`` is False when somebody else had committed first: then it is theirs."""

    manifest: Manifest
    won: bool


class ArtifactWriter:
    """One attempt at a step: parts are added, then ``commit`` makes them the step's outcome, once.

    ``identity`` is the task's hash, or ``keys.shard_id(…)`` for a shard, which commits in the same way; ``attempt`` is
    unique to the attempt. As a context manager it leaves nothing behind when the block ends without a commit.
    """

    def __init__(self, store: Store, identity: str, attempt: str) -> None:
        self._store, self._identity = store, identity
        self._folder = keys.attempt(identity, attempt)
        self._parts: dict[str, Part] = {}
        self._written: list[str] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._closed:
            self.abort()

    def add_file(
        self, name: str, path: Path, *, rows: int | None = None, move: bool = False
    ) -> Part:
        """Store a local file as the part ``name``; with ``move`` the file is taken away."""
        key = self._reserve(name)
        size, digest = _send(path, lambda: self._store.upload(key, path, move=move))
        return self._keep(Part(name=name, key=key, size=size, sha256=digest, rows=rows))

    def add_bytes(self, name: str, data: bytes, *, rows: int | None = None) -> Part:
        """Store ``data`` as the part ``name``."""
        key = self._reserve(name)
        self._store.put(key, data)
        return self._keep(Part(name=name, key=key, size=len(data), sha256=sha256(data), rows=rows))

    def add_folder(self, prefix: str, folder: Path, *, move: bool = False) -> None:
        """Store every file below ``folder``, each as the part named ``prefix`` and its path there."""
        for name, path in files_below(folder).items():
            self.add_file(prefix + name, path, move=move)

    def adopt(self, part: Part) -> None:
        """Name a part that is stored already (a shard's) in this manifest too; it is never deleted here."""
        self._check_name(part.name)
        self._keep(part)

    def commit(
        self,
        *,
        results: Mapping[str, Any] | None = None,
        inputs: Iterable[str] = (),
        timings: Mapping[str, float] | None = None,
        versions: Mapping[str, str] | None = None,
        attempt: int = 1,
    ) -> Commit:
        """Make the parts the step's outcome, unless somebody else was first: then theirs stays and ours go."""
        if self._closed:
            raise RuntimeError(f"{self._folder} is committed or aborted")
        manifest = Manifest(
            kind="step",
            id=self._identity,
            parts=tuple(self._parts[name] for name in sorted(self._parts)),
            results=dict(results or {}),
            inputs=tuple(dict.fromkeys(inputs)),
            timings=dict(timings or {}),
            versions=dict(versions or {}),
            attempt=attempt,
        )
        # From here on the manifest may exist even if an error is all that is heard of it: the parts must stay.
        data = _checked(manifest)
        self._closed = True
        outcome = _create(self._store, manifest, data)
        if not outcome.won:
            _log.warning(
                "%s was committed by another attempt; discarding %s", self._identity, self._folder
            )
            named = {part.key for part in outcome.manifest.parts}
            self._discard(key for key in self._written if key not in named)
        return outcome

    def abort(self) -> None:
        """Delete what this attempt has written."""
        self._closed = True
        self._discard(self._written)

    def _check_name(self, name: str) -> None:
        keys.checked(name)
        if name in self._parts:
            raise ValueError(f"{self._folder} has a part {name!r} already")

    def _reserve(self, name: str) -> str:
        self._check_name(name)
        key = f"{self._folder}/{name}"
        self._written.append(key)  # before it is written: a failed write may have come through
        return key

    def _keep(self, part: Part) -> Part:
        self._parts[part.name] = part
        return part

    def _discard(self, written: Iterable[str]) -> None:
        """Delete parts; one that cannot be deleted is litter that nobody reads, and no reason to fail."""
        for key in written:
            try:
                self._store.delete(key)
            except StorageError as error:
                _log.warning("could not delete %s: %s", key, error)


def commit_dataset(
    store: Store,
    files: Path | Mapping[str, Path],
    *,
    results: Mapping[str, Any] | None = None,
    rows: Mapping[str, int] | None = None,
) -> Manifest:
    """Store a data set under the hash of its content; if it is there already, nothing is sent."""
    return _commit_content(store, "dataset", files, results or {}, rows or {})


def commit_model(
    store: Store, files: Path | Mapping[str, Path], *, results: Mapping[str, Any] | None = None
) -> Manifest:
    """Store a model folder under the hash of its content; if it is there already, nothing is sent."""
    return _commit_content(store, "model", files, results or {}, {})


def files_below(folder: Path, *, hidden: bool = True) -> dict[str, Path]:
    """Every file below ``folder`` by its path there, sorted; without ``hidden``, no dot files and folders."""
    found = {}
    with explained("read", folder):
        folder.stat()
        for base, folders, files in os.walk(folder, onerror=_raise):
            if not hidden:
                folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if hidden or not name.startswith("."):
                    path = Path(base, name)
                    found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def _commit_content(
    store: Store,
    kind: ArtifactKind,
    files: Path | Mapping[str, Path],
    results: Mapping[str, Any],
    rows: Mapping[str, int],
) -> Manifest:
    named = files_below(files, hidden=False) if isinstance(files, Path) else dict(files)
    if not named:
        error = ModelError if kind == "model" else DataError
        raise error(f"{files} holds no files: expected the files of a {kind}")
    hashed = {keys.checked(name): _hash(path) for name, path in sorted(named.items())}
    identity = sha256(canonical_json([[name, digest] for name, (_, digest) in hashed.items()]))
    if found := read_manifest(store, kind, identity):
        return found
    # In a folder of their own, so that no file's name can be the manifest's.
    folder = f"{keys.artifact(kind, identity)}/files"
    parts = []
    for name, (size, digest) in hashed.items():
        path, key = named[name], f"{folder}/{name}"
        if _send(path, lambda path=path, key=key: store.upload(key, path)) != (size, digest):  # type: ignore[misc]
            raise _changed(path)
        parts.append(Part(name=name, key=key, size=size, sha256=digest, rows=rows.get(name)))
    manifest = Manifest(kind=kind, id=identity, parts=tuple(parts), results=dict(results))
    return _create(store, manifest, _checked(manifest)).manifest


def _create(store: Store, manifest: Manifest, data: bytes) -> Commit:
    key = keys.manifest(manifest.kind, manifest.id)
    if store.create(key, data):
        return Commit(manifest=parse_manifest(data, key), won=True)
    winner = read_manifest(store, manifest.kind, manifest.id)
    if winner is None:
        raise StorageError(
            f"{key} in {store.url} was deleted while it was being committed. Try again"
        )
    return Commit(manifest=winner, won=False)


def _checked(manifest: Manifest) -> bytes:
    """The manifest's bytes, certain to be readable: JSON turns some values (keys that are numbers) into others."""
    data = manifest.to_bytes()
    try:
        parse_manifest(data, keys.manifest(manifest.kind, manifest.id))
    except IntegrityError as error:
        raise ValueError(f"results must be plain JSON values: {error}") from error
    return data


def _send(path: Path, upload: Callable[[], None]) -> tuple[int, str]:
    """Run ``upload`` while hashing the file; its size and sha256."""
    with explained("read", path), path.open("rb") as stream, ThreadPoolExecutor(1) as pool:
        before = os.fstat(stream.fileno())
        hashing = pool.submit(hashlib.file_digest, stream, "sha256")
        upload()
        digest = hashing.result().hexdigest()
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _changed(path)
    return after.st_size, digest


def _hash(path: Path) -> tuple[int, str]:
    return _send(path, lambda: None)


def _changed(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path} was altered while it was being stored. Let nothing write to it and try again"
    )


def _raise(error: OSError) -> None:
    raise error
