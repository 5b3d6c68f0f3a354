"""What may be deleted: a pure decision over everything that is in a store.

An *artifact* here is its folder, such as ``steps/<hash>``. What a run refers to is kept, and so is what that was made
from; what is young is kept whatever it is, for somebody may be about to refer to it; and what this version does not
know is left alone. Of an artifact that is kept, what no manifest names goes: attempts that lost or died, shards of
another split than the committed one, checkpoints inside a step that is committed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from mstar.storage.manifest import Manifest
from mstar.storage.store import Stored

ARTIFACTS = ("datasets", "models", "steps")
TRASH = "trash"
"""Where manifests lie while the artifact is being deleted: ``trash/<key>``."""

UNNAMED = "attempts that nobody committed"
SUPERSEDED = "shards of another split than the committed one"
INSIDE = "checkpoints inside a step that is committed"
SPENT = "optimizer state that a later step has taken over"
NOTES = "notes for Jobs of runs that are finished"
PROBES = "what a probe of the store left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """What runs need, as folders of artifacts.

    ``referenced``: inputs and finished steps. ``pending``: the steps that unfinished runs come to next. ``held``: those
    of them that a controller is at work on now. ``spent``: train steps whose optimizer state no run will ask for.
    ``finished``: names of runs that are complete. ``live``: whether any controller is at work at all.
    """

    referenced: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    spent: frozenset[str] = frozenset()
    finished: frozenset[str] = frozenset()
    live: bool = False


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Everything in a store. ``manifests`` are those that could be read, ``damaged`` the keys of the others, by key.

    ``named_in_tasks`` are the artifacts that a step's task record names, by the step's folder.
    """

    objects: tuple[Stored, ...]
    manifests: Mapping[str, Manifest]
    damaged: frozenset[str] = frozenset()
    named_in_tasks: Mapping[str, frozenset[str]]

    @cached_property
    def folders(self) -> dict[str, list[Stored]]:
        """What lies in the folder of each artifact."""
        found: dict[str, list[Stored]] = defaultdict(list)
        for each in self.objects:
            if folder := artifact_of(each.key):
                found[folder].append(each)
        return dict(found)

    @cached_property
    def named(self) -> set[str]:
        """Every key that an artifact's own manifest names (not those that only a shard's does)."""
        return {
            part.key
            for key, manifest in self.manifests.items()
            if key == f"{artifact_of(key)}/manifest.json"
            for part in manifest.parts
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """An artifact that nothing refers to: the keys that others go by (manifests, the task), and all other keys."""

    folder: str
    records: tuple[str, ...]
    others: tuple[str, ...]
    size: int

    @property
    def committed(self) -> bool:
        return f"{self.folder}/manifest.json" in self.records


@dataclass(frozen=True, slots=True, kw_only=True)
class Litter:
    """A key that nobody will read again, and why."""

    key: str
    size: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes. ``unknown`` keys are left alone because nothing here knows what they are."""

    artifacts: tuple[Doomed, ...] = ()
    litter: tuple[Litter, ...] = ()
    unknown: tuple[str, ...] = ()


def decide(inventory: Inventory, roots: Roots, *, before: float) -> Plan:
    """What nothing refers to and nobody has touched since ``before`` (seconds since 1970)."""
    kept = reachable(inventory, roots, before=before)
    artifacts: list[Doomed] = []
    litter: list[Litter] = []
    for folder, objects in sorted(inventory.folders.items()):
        if folder not in kept:
            artifacts.append(_doomed(folder, objects))
        else:
            litter += litter_in(folder, inventory, roots, before=before)
    litter += _outside(inventory, roots, before)
    return Plan(
        artifacts=tuple(artifacts),
        litter=tuple(litter),
        unknown=tuple(each.key for each in inventory.objects if _unknown(each.key)),
    )


def reachable(inventory: Inventory, roots: Roots, *, before: float) -> set[str]:
    """The artifacts that are kept: what is named, young or unreadable, and all that it was made from."""
    by_digest = {
        manifest.digest: folder
        for key, manifest in inventory.manifests.items()
        if (folder := artifact_of(key)) and key == f"{folder}/manifest.json"
    }
    made_from: dict[str, set[str]] = defaultdict(set)
    for key, manifest in inventory.manifests.items():
        folder = artifact_of(key)
        if folder:
            made_from[folder] |= {by_digest[each] for each in manifest.inputs if each in by_digest}
            made_from[folder] |= {found for p in manifest.parts if (found := artifact_of(p.key))}
    for folder, named in inventory.named_in_tasks.items():
        made_from[folder] |= named
    young = {
        folder
        for folder, objects in inventory.folders.items()
        if _newest(objects) >= before or _damaged(folder, inventory)
    }
    waiting = [*roots.referenced, *roots.pending, *roots.held, *young]
    kept: set[str] = set()
    while waiting:
        folder = waiting.pop()
        if folder not in kept:
            kept.add(folder)
            waiting += made_from[folder]
    return kept


def artifact_of(key: str) -> str:
    """The folder of the artifact that a key belongs to; empty when it belongs to none."""
    parts = key.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 and parts[0] in ARTIFACTS else ""


def is_manifest(key: str) -> bool:
    """Whether a key is the manifest of an artifact or of a shard (and not a part that is called so)."""
    folder = artifact_of(key)
    parts = key.removeprefix(f"{folder}/").split("/")
    return (
        bool(folder)
        and parts[-1] == "manifest.json"
        and parts[:-1] in ([], ["shards", *parts[1:2]])
    )


def _doomed(folder: str, objects: Iterable[Stored]) -> Doomed:
    found = list(objects)
    records = tuple(
        each.key for each in found if is_manifest(each.key) or each.key == f"{folder}/task.json"
    )
    return Doomed(
        folder=folder,
        records=records,
        others=tuple(each.key for each in found if each.key not in records),
        size=sum(each.size for each in found),
    )


def litter_in(
    folder: str, inventory: Inventory, roots: Roots, *, before: float
) -> Iterator[Litter]:
    """What may go of an artifact that is kept; what was written together is judged by the youngest of it."""
    if folder in roots.held or _damaged(folder, inventory):
        return
    groups: dict[tuple[str, str], list[Stored]] = defaultdict(list)
    for each in inventory.folders.get(folder, ()):
        groups[_group(folder, each.key)].append(each)
    own = inventory.manifests.get(f"{folder}/manifest.json")
    spent = {part.key for part in own.parts if part.name.startswith("trainer/")} if own else set()
    for (kind, place), members in groups.items():
        if _newest(members) >= before:
            continue
        keys = {each.key for each in members}
        gone, why = _gone(kind, place, keys, inventory, committed=own is not None)
        for each in members:
            if each.key in gone:
                yield Litter(key=each.key, size=each.size, why=why)
            elif folder in roots.spent and each.key in spent:
                yield Litter(key=each.key, size=each.size, why=SPENT)


def _gone(
    kind: str, place: str, keys: set[str], inventory: Inventory, *, committed: bool
) -> tuple[set[str], str]:
    """Which of the keys that were written together in ``place`` nobody will read again, and why."""
    if kind == "progress" and committed:
        return keys, INSIDE
    if kind == "written":
        return keys - inventory.named, UNNAMED
    if kind == "shard":
        parts = _parts_of(place, inventory)
        if committed and not parts & inventory.named:
            return keys, SUPERSEDED
        return {key for key in keys if _is_written(key)} - inventory.named - parts, UNNAMED
    return set(), ""


def _group(folder: str, key: str) -> tuple[str, str]:
    """What a key of an artifact is (``record``, ``written``, ``shard``, ``progress``, ``unknown``), and with which."""
    first, *rest = key.removeprefix(f"{folder}/").split("/")
    if not rest:
        records = {"manifest.json", "task.json", "claim.json"}
        return ("record", "") if first in records else ("unknown", key)
    if first == "shards" and len(rest) > 1:
        return "shard", f"{folder}/shards/{rest[0]}"
    if first == "progress":
        return "progress", f"{folder}/progress"
    if _is_write_folder(first):
        return "written", f"{folder}/{first}"
    return "unknown", key


def _is_write_folder(name: str) -> bool:
    return name.startswith(("attempt-", "files.")) or name == "files"


def _is_written(shard_key: str) -> bool:
    """Whether a key below ``shards/<i>-of-<n>/`` is what an attempt wrote."""
    return _is_write_folder(shard_key.split("/")[4])


def _parts_of(shard: str, inventory: Inventory) -> set[str]:
    manifest = inventory.manifests.get(f"{shard}/manifest.json")
    return {part.key for part in manifest.parts} if manifest else set()


def _outside(inventory: Inventory, roots: Roots, before: float) -> Iterator[Litter]:
    """Litter that belongs to no artifact."""
    for each in inventory.objects:
        if each.modified >= before:
            continue
        parts = each.key.split("/")
        if parts[0].startswith("probe-"):
            yield Litter(key=each.key, size=each.size, why=PROBES)
        elif parts[0] == "runs" and parts[2:3] == ["jobs"] and parts[1] in roots.finished:
            yield Litter(key=each.key, size=each.size, why=NOTES)


def _unknown(key: str) -> bool:
    if folder := artifact_of(key):
        return _group(folder, key)[0] == "unknown"
    return not (key.startswith(("runs/", "verdicts/", f"{TRASH}/", "probe-")))


def _damaged(folder: str, inventory: Inventory) -> bool:
    return any(key.startswith(f"{folder}/") for key in inventory.damaged)


def _newest(objects: Iterable[Stored]) -> float:
    return max(each.modified for each in objects)
