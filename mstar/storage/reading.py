"""Reading what was committed: a manifest is checked against its digest, a part against its size and sha256.

Nothing is read twice to be checked twice: what this process has verified stays verified while the file is the same.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mstar.errors import IntegrityError, NotFound
from mstar.storage import keys
from mstar.storage.faults import explained
from mstar.storage.manifest import ArtifactKind, Manifest, Part, Ref
from mstar.storage.parallel import LARGE, in_parallel
from mstar.storage.seen import digest_of, file_digest, remember
from mstar.storage.store import Store

__all__ = [
    "fetch",
    "file_digest",
    "materialise",
    "open_part",
    "parse_manifest",
    "read_manifest",
    "resolve",
    "verify",
]

_MANIFEST = TypeAdapter(Manifest)
_DROPPED = (
    "`mstarctl gc --drop-trainer-state` removes optimizer state of iterations that are over. "
)


def read_manifest(store: Store, kind: ArtifactKind, identity: str) -> Manifest | None:
    """The committed artifact, or None when it is not committed. IntegrityError if the manifest is not its own."""
    key = keys.manifest(kind, identity)
    try:
        data = store.get(key)
    except NotFound:
        return None
    manifest = parse_manifest(data, f"{key} in {store.url}")
    if (manifest.kind, manifest.id) != (kind, identity):
        raise IntegrityError(
            f"{key} in {store.url} is a manifest from another run or task: expected {kind} {identity}, "
            f"found {manifest.kind} {manifest.id}. {_remedy(key)}"
        )
    return manifest


def resolve(store: Store, ref: Ref) -> Manifest:
    """The artifact that ``ref`` names, certain to be the very one: NotFound or IntegrityError otherwise."""
    manifest = read_manifest(store, ref.kind, ref.id)
    if manifest is None:
        raise NotFound(
            f"{ref.kind} {ref.id} is not in the store {store.url}: it was never committed there, or deleted. "
            "Resume the run that makes it, or name the store that holds it"
        )
    if manifest.digest != ref.digest:
        raise IntegrityError(
            f"{keys.manifest(ref.kind, ref.id)} in {store.url} is a manifest from another run or task: "
            f"expected digest {ref.digest}, found {manifest.digest}. It was made again after the task that names it "
            "was written: resume the run, which plans the task anew"
        )
    return manifest


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``, which must carry its own digest; ``where`` is for the message."""
    try:
        body: Any = json.loads(data)
        stored = body.pop("digest")
        manifest = _MANIFEST.validate_python(body)
        digest = manifest.digest
    except (ValueError, ValidationError, AttributeError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IntegrityError(
            f"{where} is not a manifest ({reason}): it is truncated, altered or something else. {_remedy(where)}"
        ) from error
    if stored != digest:
        raise IntegrityError(
            f"{where} was altered: expected digest {stored}, as it says itself, found {digest}. {_remedy(where)}"
        )
    return manifest


def open_part(store: Store, part: Part, scratch: Path) -> Path:
    """A local file, to be read only, that is certain to hold ``part``: the store's own, or a copy below ``scratch``."""
    local = store.local_path(part.key)
    if local is None:
        return fetch(store, part, scratch / "parts" / part.sha256 / PurePosixPath(part.name).name)
    verify(local, part, store.url)
    return local


def materialise(store: Store, manifest: Manifest, prefix: str, scratch: Path) -> Path:
    """A local folder, to be read only, that holds every part named ``prefix…`` under its name less the prefix.

    ``prefix`` is empty or ends with a slash (``"model/"``). The folder is the store's own where it has one that
    holds these files and no other, else a copy below ``scratch`` that later calls and processes use again.
    """
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{prefix!r} must be empty or end with '/'")
    parts = [part for part in manifest.parts if part.name.startswith(prefix)]
    if not parts:
        names = ", ".join(sorted(part.name for part in manifest.parts)[:8]) or "nothing"
        raise NotFound(
            f"{manifest.kind} {manifest.id} in {store.url} has no part named {prefix}…; it has {names}. "
            "Name an artifact of the right kind"
        )
    if folder := _own_folder(store, parts, prefix):
        for part in parts:
            verify(folder / part.name.removeprefix(prefix), part, store.url)
        return folder
    copy = scratch / "artifacts" / manifest.digest
    targets = [(part, copy / keys.checked(part.name)) for part in parts]
    for part, target in targets:
        if part.size >= LARGE:  # the store fetches several pieces of it at once
            fetch(store, part, target)
    small = [(part, target) for part, target in targets if part.size < LARGE]
    for _ in in_parallel(lambda each: fetch(store, *each), small):
        pass
    return copy / prefix


def verify(path: Path, part: Part, origin: str) -> None:
    """IntegrityError unless the file holds ``part``; ``origin`` is the store it comes from, for the message."""
    with explained("read", path):
        size = path.stat().st_size
        found = digest_of(path) if size == part.size else None
    _check(part, size, found, origin)


def fetch(store: Store, part: Part, target: Path) -> Path:
    """``part`` at ``target``, downloaded unless it is there already and right; else ``IntegrityError``."""
    if target.is_file():
        with suppress(IntegrityError):
            verify(target, part, store.url)
            return target
    try:
        digest = store.download(part.key, target)
    except NotFound as error:
        raise IntegrityError(
            f"part {part.name} is missing: expected {part.size} bytes, found nothing, in {part.key} of {store.url}. "
            f"{_DROPPED if part.name.startswith('trainer/') else ''}{_remedy(part.key)}"
        ) from error
    try:
        with explained("read", target):
            size = target.stat().st_size
            remember(target, digest)
        _check(part, size, digest, store.url)
    except IntegrityError:
        target.unlink(missing_ok=True)
        raise
    return target


def _check(part: Part, size: int, digest: str | None, origin: str) -> None:
    """IntegrityError unless size and sha256 (None where the size is wrong already) are those of ``part``."""
    if size != part.size:
        expected, seen = f"{part.size} bytes", f"{size}"
    elif digest != part.sha256:
        expected, seen = f"sha256 {part.sha256}", f"{digest}"
    else:
        return
    state = "truncated" if size < part.size else "altered"
    raise IntegrityError(
        f"part {part.name} is {state}: expected {expected}, found {seen}, in {part.key} of {origin}. "
        f"{_remedy(part.key)}"
    )


def _own_folder(store: Store, parts: Iterable[Part], prefix: str) -> Path | None:
    """The store's folder with just these files under the right names, if there is one."""
    folder, names = None, set()
    for part in parts:
        name = keys.checked(part.name.removeprefix(prefix))
        path = store.local_path(part.key)
        if path is None or not part.key.endswith(f"/{name}"):
            return None
        above = path.parents[name.count("/")]
        if folder not in {None, above}:
            return None
        folder = above
        names.add(folder / name)
    if folder is None:
        return None
    found = (Path(base, name) for base, _, files in os.walk(folder) for name in files)
    return (
        folder
        if {path for path in found if not path.name.startswith(keys.TEMPORARY)} == names
        else None
    )


def _remedy(where: str) -> str:
    """What to do about a damaged artifact, from the key of something in it."""
    folder = "/".join(where.split(" ", maxsplit=1)[0].split("/")[:2])
    again = (
        "resume the run, which makes it again" if folder.startswith("steps/") else "import it again"
    )
    return f"Restore it from a copy, or delete all below {folder}/ and {again}"
