"""Checkpoints inside one step, in the store: parts first, then a manifest; the next attempt takes the newest good one.

None of them is an outcome: a damaged one is passed over, and all of them go when the step is committed. Nothing here
knows what a checkpoint holds.
"""

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mstar.errors import MstarError, StorageError, StoreRefused
from mstar.record import Record
from mstar.storage import keys
from mstar.storage.manifest import Manifest, Part
from mstar.storage.open import open_store
from mstar.storage.parts import PartWriter, files_below
from mstar.storage.reading import materialise, parse_manifest
from mstar.storage.store import Store

log = logging.getLogger(__name__)

KEPT = 2
"""So many checkpoints are kept: while the newest is damaged, or is being read, there is another."""

FAULTS = (StorageError, StoreRefused)
"""What a store may raise whatever is asked of it."""


class Place(Record):
    """Where an attempt's checkpoints go; enough for another process of the attempt to open them."""

    store: str
    identity: str
    attempt: str
    scratch: Path


class Interim:
    """One attempt's view of the checkpoints inside a step. ``identity`` is the step's, ``scratch`` takes copies."""

    def __init__(self, store: Store, identity: str, attempt: str, scratch: Path) -> None:
        self._store, self._identity, self._attempt = store, identity, attempt
        self.scratch = scratch
        self._folder = keys.progress(identity)
        self._good: list[str] = []

    @classmethod
    def at(cls, place: Place) -> "Interim":
        """The same view from another process."""
        return cls(open_store(place.store), place.identity, place.attempt, place.scratch)

    @property
    def place(self) -> Place:
        """What another process needs to have the same view."""
        return Place(
            store=self._store.url,
            identity=self._identity,
            attempt=self._attempt,
            scratch=self.scratch.resolve(),
        )

    def name(self, steps: int) -> str:
        """What this attempt calls its checkpoint after so many optimizer steps."""
        return f"{steps:08d}-{self._attempt}"

    def candidates(self, fit: Mapping[str, Any]) -> Iterator[str]:
        """The checkpoints that are whole and say of themselves what ``fit`` says, most optimizer steps first."""
        found = [key for key in self._store.list(self._folder) if _is_manifest(self._folder, key)]
        for key in sorted(found, reverse=True):
            name = _name_in(self._folder, key)
            manifest = self._read(name)
            if manifest is None:
                continue
            said = {what: manifest.results.get(what) for what in fit}
            if said == dict(fit):
                yield name
            else:
                log.warning("passing over checkpoint %s: it is of %s, not of %s", key, said, fit)

    def fetch(self, name: str) -> Path | None:
        """A local folder, to be read only, with the checkpoint's files; None if one of them is not as written."""
        manifest = self._read(name)
        if manifest is None:
            return None
        try:
            return materialise(self._store, manifest, "", self.scratch)
        except MstarError as error:
            log.warning("passing over checkpoint %s of step %s: %s", name, self._identity, error)
            return None

    def went_on_from(self, name: str) -> None:
        """Keep this checkpoint until there are two newer ones."""
        self._good = [name]

    def send(self, name: str, folder: Path) -> list[Part]:
        """Take away every file below ``folder`` into the parts of a checkpoint, which ``commit`` makes one."""
        return send_files(self._store, f"{self._folder}/{name}", folder)

    def commit(self, name: str, parts: Iterable[Part], says: Mapping[str, Any]) -> None:
        """Make the parts a checkpoint that says ``says`` of itself, and delete all but the last two."""
        manifest = Manifest(
            kind="step",
            id=f"{self._folder}/{name}",
            parts=tuple(sorted(parts, key=lambda part: part.name)),
            results=dict(says),
        )
        self._store.put(self._key(name), manifest.to_bytes())
        self._good = [*(known for known in self._good if known != name), name][-KEPT:]
        clear_progress(self._store, self._identity, but=self._good)

    def show(self, losses: Sequence[float]) -> None:
        """Let whoever watches see the losses so far; what is shown goes when a checkpoint comes or the step is done."""
        self._store.put(keys.live(self._identity), json.dumps(list(losses)).encode())

    def send_outcome(self, folder: Path) -> list[Part]:
        """Take away every file below ``folder`` into the attempt's own parts of the step, for another to commit."""
        return send_files(self._store, keys.attempt(self._identity, self._attempt), folder)

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}.json"

    def _read(self, name: str) -> Manifest | None:
        key = self._key(name)
        try:
            manifest = parse_manifest(self._store.get(key), f"{key} in {self._store.url}")
        except MstarError as error:
            log.warning("passing over checkpoint %s of step %s: %s", name, self._identity, error)
            return None
        if manifest.id != f"{self._folder}/{name}":
            log.warning("passing over checkpoint %s: it was written as %s", key, manifest.id)
            return None
        return manifest


def clear_progress(store: Store, identity: str, *, but: Collection[str] = ()) -> None:
    """Delete the checkpoints inside a step, except those named; a manifest goes before its parts."""
    folder = keys.progress(identity)
    try:
        found = [key for key in store.list(folder) if _name_in(folder, key) not in but]
    except FAULTS as error:
        log.warning("old checkpoints of step %s stay: %s", identity, error)
        return
    discard(store, sorted(found, key=lambda key: not _is_manifest(folder, key)))


def send_files(store: Store, prefix: str, folder: Path) -> list[Part]:
    """Take away every file below ``folder`` into the store; what was sent goes again if another fails.

    The parts lie below ``prefix`` with a random ending, where nobody else writes.
    """
    writer = PartWriter(store, prefix)
    try:
        writer.add_files(files_below(folder), {}, move=True)
    except BaseException:
        writer.discard()
        raise
    return list(writer.parts.values())


def discard(store: Store, found: Iterable[str]) -> None:
    """Delete keys; what cannot be deleted is left, for nobody reads it."""
    for key in found:
        try:
            store.delete(key)
        except FAULTS as error:
            log.warning("left %s and what follows it for `mstarctl gc`: %s", key, error)
            return


def _is_manifest(folder: str, key: str) -> bool:
    return "/" not in key.removeprefix(f"{folder}/")


def _name_in(folder: str, key: str) -> str:
    """The checkpoint that a key belongs to: without a manifest's ending, or the random one of a folder of parts."""
    return key.removeprefix(f"{folder}/").split("/")[0].rpartition(".")[0]
