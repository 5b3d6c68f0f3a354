"""Writing artifacts: parts first, then the manifest, created by exactly one writer.

A step's parts go into the folder of one attempt, so attempts never touch each other's; the first to create the
manifest has committed the step, and any other discards its parts and takes the winner's manifest.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mstar.errors import DataError, IntegrityError, ModelError, NotFound, StorageError
from mstar.storage import keys
from mstar.storage.manifest import ArtifactKind, Manifest, Part, canonical_json, sha256
from mstar.storage.parts import PartWriter, altered, files_below, hashed
from mstar.storage.reading import parse_manifest, read_manifest
from mstar.storage.store import Store

__all__ = ["ArtifactWriter", "Commit", "commit_dataset", "commit_model", "files_below"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The committed manifest. ``won`` is False when somebody else had committed first: then it is theirs."""

    manifest: Manifest
    won: bool


class ArtifactWriter:
    """One attempt at a step: parts are added, then ``commit`` makes them the step's outcome, once.

    ``identity`` is the task's hash, or ``keys.shard_id(…)`` for a shard, which commits in the same way; ``attempt`` is
    for people to tell attempts apart. As a context manager it leaves nothing behind when the block ends without a
    commit.
    """

    def __init__(self, store: Store, identity: str, attempt: str) -> None:
        self._store, self._identity = store, identity
        self._parts = PartWriter(store, keys.attempt(identity, attempt))
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
        self._parts.add_files({name: path}, {name: rows}, move=move)
        return self._parts.parts[name]

    def add_bytes(self, name: str, data: bytes, *, rows: int | None = None) -> Part:
        """Store ``data`` as the part ``name``."""
        return self._parts.add_bytes(name, data, rows=rows)

    def add_folder(self, prefix: str, folder: Path, *, move: bool = False) -> None:
        """Store every file below ``folder``, each as the part named ``prefix`` and its path there."""
        found = files_below(folder)
        self._parts.add_files({prefix + name: path for name, path in found.items()}, {}, move=move)

    def adopt(self, part: Part) -> None:
        """Name a part that is stored already (a shard's) in this manifest too; it is never deleted here."""
        self._parts.check_name(part.name)
        self._parts.keep(part)

    def commit(
        self,
        *,
        results: Mapping[str, Any] | None = None,
        inputs: Iterable[str] = (),
        timings: Mapping[str, float] | None = None,
        usage: Mapping[str, float] | None = None,
        versions: Mapping[str, str] | None = None,
        attempt: int = 1,
    ) -> Commit:
        """Make the parts the step's outcome, unless somebody else was first: then theirs stays and ours go."""
        if self._closed:
            raise RuntimeError(f"{self._parts.folder} is committed or aborted")
        manifest = Manifest(
            kind="step",
            id=self._identity,
            parts=tuple(part for _, part in sorted(self._parts.parts.items())),
            results=dict(results or {}),
            inputs=tuple(dict.fromkeys(inputs)),
            timings=dict(timings or {}),
            usage=dict(usage or {}),
            versions=dict(versions or {}),
            attempt=attempt,
        )
        # From here on the manifest may exist even if an error is all that is heard of it: the parts must stay.
        data = _checked(manifest)
        self._closed = True
        outcome = _create(self._store, manifest, data)
        if not outcome.won and self._parts.parts:
            _log.warning(
                "%s was committed by another attempt; discarding %s",
                self._identity,
                self._parts.folder,
            )
            self._parts.discard({part.key for part in outcome.manifest.parts})
        return outcome

    def abort(self) -> None:
        """Delete what this attempt has written."""
        self._closed = True
        self._parts.discard()


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


def _commit_content(
    store: Store,
    kind: ArtifactKind,
    files: Path | Mapping[str, Path],
    results: Mapping[str, Any],
    rows: Mapping[str, int | None],
) -> Manifest:
    named = files_below(files, hidden=False) if isinstance(files, Path) else dict(files)
    if not named:
        error = ModelError if kind == "model" else DataError
        raise error(f"{files} holds no files: expected the files of a {kind}")
    for name in named:
        keys.checked(name)
    known = hashed(dict(sorted(named.items())))
    identity = sha256(canonical_json([[name, digest] for name, (_, digest) in known.items()]))
    if found := _renewed(store, kind, identity):
        return found
    # In a folder of their own, so that no file's name can be the manifest's.
    writer = PartWriter(store, keys.content(kind, identity))
    try:
        writer.add_files(dict(sorted(named.items())), rows)
        parts = tuple(writer.parts[name] for name in known)
        _check_unaltered(parts, known, named)
        manifest = Manifest(kind=kind, id=identity, parts=parts, results=dict(results))
        data = _checked(manifest)
    except BaseException:
        writer.discard()
        raise
    outcome = _create(store, manifest, data)
    if not outcome.won:
        writer.discard({part.key for part in outcome.manifest.parts})
    return outcome.manifest


def _check_unaltered(
    parts: Iterable[Part], known: Mapping[str, tuple[int, str]], files: Mapping[str, Path]
) -> None:
    for part in parts:
        if (part.size, part.sha256) != known[part.name]:
            raise altered(files[part.name])


def _renewed(store: Store, kind: ArtifactKind, identity: str) -> Manifest | None:
    """The artifact if it is committed, as young as if it were new: a sweep then leaves it to the run that needs it."""
    key = keys.manifest(kind, identity)
    try:
        data = store.get(key)
    except NotFound:
        return None
    found = read_manifest(store, kind, identity)
    if found:
        store.put(key, data)
    return found


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
