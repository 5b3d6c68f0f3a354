"""The folder, whole or not at all: written beside its place, checked, and then renamed."""

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mstar.errors import ConflictError, ModelError, StorageError
from mstar.export.card import body, card, files_of
from mstar.export.lineage import MODEL, Provenance
from mstar.storage.faults import explained
from mstar.storage.local import flush, make_folder
from mstar.storage.manifest import Manifest, Part
from mstar.storage.reading import fetch, resolve
from mstar.storage.store import Store

RECORD, CARD = "mstar.json", "README.md"
FROM_BASE = ("generation_config.json", "chat_template.jinja", "chat_template.json")
"""What a checkpoint that lacks it takes over from its base model; so is the code of a model that brings its own."""

Open = Callable[[Path], object]
Tell = Callable[[int, int, str], None]


def export(
    store: Store,
    what: Provenance,
    target: Path,
    *,
    license_: str | None = None,
    open_folder: Open,
    tell: Tell = lambda *_: None,
) -> dict[str, Any]:
    """Write the checkpoint into the folder ``target``; what ``mstar.json`` holds.

    ``target`` must not be there, or be empty, or a finished export of the same checkpoint, which is written again.
    ``open_folder`` raises ``ModelError`` for a folder that does not open as a model. Raises ``ConflictError``,
    ``IntegrityError`` (a damaged part), ``StorageError`` (a full disk, a folder that cannot be written).
    """
    target = target.expanduser().absolute()
    _check_target(target, what)
    parts = _parts(store, what)
    record = body(what, files_of(parts), license_)
    with explained("write", target.parent):
        make_folder(target.parent)
        _check_room(target.parent, parts)
        fresh = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
        fresh.mkdir()
    try:
        _fill(store, fresh, parts, tell)
        with explained("write", fresh):
            (fresh / CARD).write_text(card(what, license_), encoding="utf-8")
            text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
            (fresh / RECORD).write_text(text, encoding="utf-8")
        check_files(fresh)
        open_folder(fresh)
        _put_in_place(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return record


def check_files(folder: Path) -> None:
    """``ModelError`` unless the folder has what every engine reads: configuration, weights, processor, tokenizer."""
    wanted = {
        "config.json": ("config.json",),
        "weights": ("*.safetensors",),
        "a processor": ("processor_config.json", "preprocessor_config.json"),
        "a tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json"),
    }
    lacking = [
        what for what, names in wanted.items() if not any(any(folder.glob(n)) for n in names)
    ]
    if lacking:
        raise ModelError(
            f"the checkpoint has no {' and no '.join(lacking)}, so no engine would load it; it was not exported"
        )


def _parts(store: Store, what: Provenance) -> dict[str, Part]:
    """The files of the model, by name."""
    found = _below(what.checkpoint.manifest, MODEL)
    if not found:
        raise ModelError(
            f"step {what.checkpoint.name} has no model in it; name a train step of the run"
        )
    base = _below(resolve(store, what.run.inputs.model), "")
    for name, part in base.items():
        if name not in found and (name in FROM_BASE or name.endswith(".py")):
            found[name] = part
    return found


def _below(manifest: Manifest, prefix: str) -> dict[str, Part]:
    return {
        part.name.removeprefix(prefix): part
        for part in manifest.parts
        if part.name.startswith(prefix)
    }


def _check_target(target: Path, what: Provenance) -> None:
    """A folder that holds anything else is somebody's; nothing of it is touched."""
    with explained("read", target):
        if not target.exists():
            return
        if not target.is_dir():
            raise ConflictError(f"{target} is a file; name a folder to write with --to")
        names = {path.name for path in target.iterdir()}
    if not names:
        return
    try:
        record = json.loads((target / RECORD).read_bytes())
        same = record["checkpoint"]["digest"] == what.checkpoint.entry.ref.digest
        own = {Path(name).parts[0] for name in record["files"]} | {RECORD, CARD}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same, own = False, set()
    if not same or names - own:
        held = "another export" if own and not same else ", ".join(sorted(names - own)[:4])
        raise ConflictError(
            f"{target} is not empty (it holds {held}), and only an export of this very checkpoint is written over; "
            "name another folder, or empty this one"
        )


def _check_room(folder: Path, parts: Mapping[str, Part]) -> None:
    needed, free = sum(part.size for part in parts.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"the model takes {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB left; free space there, or "
            "export to another disk"
        )


def _fill(store: Store, folder: Path, parts: Mapping[str, Part], tell: Tell) -> None:
    """Copy each part and check it against its size and sha256."""
    done, total = 0, sum(part.size for part in parts.values())
    for name, part in sorted(parts.items()):
        target = folder / name
        fetch(store, part, target)
        with explained("write", target):
            flush(target)
        done += part.size
        tell(done >> 20, total >> 20, "MiB")


def _put_in_place(fresh: Path, target: Path) -> None:
    with explained("write", target):
        if not target.exists() or not any(target.iterdir()):
            fresh.replace(target)
        else:
            old = target.parent / f"{fresh.name}.old"
            target.rename(old)
            try:
                fresh.rename(target)
            except BaseException:
                old.rename(target)
                raise
            shutil.rmtree(old)
        flush(target.parent)
