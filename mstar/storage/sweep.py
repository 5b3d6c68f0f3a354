"""Deleting what nothing refers to, while runs go on.

An artifact goes in an order that a run may meet anywhere: its manifests are moved aside first, so that it no longer
counts as done; then time passes, in which whoever had just adopted it says so; then runs are looked at again, and what
one of them refers to now is put back. Only then the parts go. A sweep that is killed is taken up by the next one: what
it had moved aside is put back or deleted, as runs then say.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from mstar.errors import IntegrityError, NotFound
from mstar.storage import keys
from mstar.storage.manifest import Manifest
from mstar.storage.parallel import in_parallel
from mstar.storage.reading import parse_manifest
from mstar.storage.retention import (
    TRASH,
    Doomed,
    Inventory,
    Litter,
    Plan,
    Roots,
    artifact_of,
    decide,
    is_manifest,
    litter_in,
    reachable,
)
from mstar.storage.store import Remnant, Store

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 60.0
"""Longer than a controller takes from seeing that a step is committed to writing it into its run's history."""

BREATH_SECONDS = 2.0
"""The same where no controller is at work, but somebody may be about to start a run with data that are stored."""

Look = Callable[[Store], Roots]
"""What runs need now, by what the given store shows. Raises when a run cannot be understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What goes, or went: the plan, and what unfinished writes had left."""

    plan: Plan
    remnants: tuple[Remnant, ...]


def survey(store: Store, look: Look, *, before: float) -> Sweep:
    """What a sweep would delete now: nothing that was touched since ``before``, nothing that a run needs."""
    plan = decide(take_inventory(store), look(_with_trash(store)), before=before)
    old = tuple(each for each in store.remnants() if each.since < before)
    return Sweep(plan=plan, remnants=old)


def sweep(
    store: Store,
    found: Sweep,
    look: Look,
    *,
    before: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Sweep:
    """Delete what was found, as far as it is still so; what was in fact deleted.

    Nothing is deleted when a run cannot be understood: then ``look`` raises.
    """
    _take_up(store, look(_with_trash(store)))
    inventory = take_inventory(store)
    now = decide(inventory, look(_with_trash(store)), before=before)
    same = {each.folder: each for each in found.plan.artifacts}
    doomed = [each for each in now.artifacts if same.get(each.folder) == each]
    litter = sorted(set(now.litter) & set(found.plan.litter), key=lambda each: each.key)
    gone = Plan(
        artifacts=tuple(_delete_artifacts(store, doomed, inventory, look, before, sleep)),
        litter=tuple(_delete_litter(store, litter, look(_with_trash(store)), before)),
        unknown=now.unknown,
    )
    for remnant in found.remnants:
        store.clear(remnant)
    return Sweep(plan=gone, remnants=found.remnants)


def take_inventory(store: Store, prefix: str = "") -> Inventory:
    """Everything below ``prefix``, with every manifest and every step's task record read."""
    objects = tuple(store.scan(prefix))
    records = [each.key for each in objects if is_manifest(each.key)]
    tasks = [each.key for each in objects if each.key == f"{artifact_of(each.key)}/task.json"]
    manifests: dict[str, Manifest] = {}
    named: dict[str, frozenset[str]] = {}
    damaged: set[str] = set()
    read = in_parallel(lambda key: _manifest(store, key), records)
    for key, manifest in zip(records, read, strict=True):
        if isinstance(manifest, Manifest):
            manifests[key] = manifest
        elif manifest is not None:
            damaged.add(key)
    for key, refs in zip(tasks, in_parallel(lambda key: _named_in(store, key), tasks), strict=True):
        if refs is None:
            damaged.add(key)
        else:
            named[artifact_of(key)] = refs
    return Inventory(
        objects=objects,
        manifests=manifests,
        damaged=frozenset(damaged),
        named_in_tasks=named,
    )


def _manifest(store: Store, key: str) -> Manifest | IntegrityError | None:
    """The manifest, what is wrong with it, or None when it has just gone."""
    try:
        return parse_manifest(store.get(key), f"{key} in {store.url}")
    except NotFound:
        return None
    except IntegrityError as error:
        _log.warning("left alone: %s", error)
        return error


def _named_in(store: Store, key: str) -> frozenset[str] | None:
    """The artifacts that a task's record names, whatever version wrote it; None when it is no record."""
    try:
        body = json.loads(store.get(key))
    except NotFound:
        return frozenset()
    except ValueError:
        _log.warning("left alone: %s in %s is not a task's record", key, store.url)
        return None
    return frozenset(_references(body))


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if value.keys() == {"kind", "id", "digest"} and value["kind"] in {
            "step",
            "dataset",
            "model",
        }:
            yield keys.artifact(value["kind"], str(value["id"]))
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _take_up(store: Store, roots: Roots) -> None:
    """End what a killed sweep left: a record that a run refers to goes back, the others are of no more use."""
    for key in list(store.list(TRASH)):
        original = key.removeprefix(f"{TRASH}/")
        if artifact_of(original) in roots.referenced:
            store.create(original, store.get(key))
            _log.warning("put back %s, which an earlier sweep had moved aside", original)
        store.delete(key)


def _delete_artifacts(
    store: Store,
    doomed: list[Doomed],
    inventory: Inventory,
    look: Look,
    before: float,
    sleep: Callable[[float], None],
) -> Iterator[Doomed]:
    """Move records aside, wait for whoever has just seen them, put back what is needed now, delete the rest."""
    # A manifest is written again by whoever wants to use it (``commit_model``), so that it is young.
    old = [each for each in doomed if all(o.modified < before for o in store.scan(each.folder))]
    if not old:
        return
    for each in old:
        for key in each.records:
            _move_aside(store, key)
    live = look(_with_trash(store)).live
    sleep(SETTLE_SECONDS if live else BREATH_SECONDS)
    kept = reachable(inventory, look(_with_trash(store)), before=before)
    for each in old:
        again = (
            store.size(f"{each.folder}/manifest.json") is not None
        )  # committed anew: the next sweep looks
        if each.folder in kept or again:
            for key in each.records:
                _put_back(store, key)
            continue
        _delete_all(store, each.others)
        _delete_all(store, [f"{TRASH}/{key}" for key in each.records])
        yield each


def _move_aside(store: Store, key: str) -> None:
    try:
        data = store.get(key)
    except NotFound:
        return
    store.put(f"{TRASH}/{key}", data)
    store.delete(key)


def _put_back(store: Store, key: str) -> None:
    try:
        store.create(key, store.get(f"{TRASH}/{key}"))
    except NotFound:
        return
    store.delete(f"{TRASH}/{key}")


def _delete_litter(
    store: Store, litter: Iterable[Litter], roots: Roots, before: float
) -> Iterator[Litter]:
    """Delete litter, looking at each artifact once more before."""
    by_artifact: dict[str, list[Litter]] = defaultdict(list)
    for each in litter:
        by_artifact[artifact_of(each.key)].append(each)
    for folder, found in by_artifact.items():
        still = set(found)
        if folder:
            fresh = take_inventory(store, folder)
            still &= set(litter_in(folder, fresh, roots, before=before))
        # A shard's manifest goes before its parts: it must never name what is not there.
        gone = sorted(still, key=lambda each: (not is_manifest(each.key), each.key))
        for each in gone:
            if is_manifest(each.key):
                store.delete(each.key)
        _delete_all(store, [each.key for each in gone if not is_manifest(each.key)])
        yield from gone


def _delete_all(store: Store, found: Iterable[str]) -> None:
    for _ in in_parallel(store.delete, found):
        pass


class _WithTrash:
    """A store that still has what was moved aside."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: str) -> bytes:
        try:
            return self._store.get(key)
        except NotFound:
            return self._store.get(f"{TRASH}/{key}")

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def _with_trash(store: Store) -> Store:
    return cast("Store", _WithTrash(store))
