"""``study.json``: finished cells over several sittings and machines, and what they say together.

A cell in the file stays there when its run is not in this store. It counts only while its spec is the row's spec of
today, and its data and base model are those of the others; else it is set aside: kept, named, and in no mean.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mstar.errors import IntegrityError, StorageError
from mstar.study.collect import Found
from mstar.study.grid import Cell, fingerprint
from mstar.study.records import CellRecord, Kept

FORMAT = 1
"""Raised when a file of an earlier version can no longer be read as it is."""


Place = tuple[str, str | None]
"""A row on a base."""

Digests = tuple[str, str, str | None]
"""Of a data set, of a model and of its teacher."""


class Aside(Kept):
    """A record that does not belong to the study as it is now, and why."""

    why: str
    cell: CellRecord


class File(Kept):
    """What of ``study.json`` is read again: records and the specs they are of. The rest is computed from them."""

    format: int
    study: str
    specs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    cells: tuple[CellRecord, ...] = ()
    set_aside: tuple[Aside, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The records that count, one a cell at most; those set aside; and the specs that both are of."""

    records: tuple[CellRecord, ...]
    aside: tuple[Aside, ...]
    specs: Mapping[str, dict[str, Any]]

    def has(self, cell: Cell) -> bool:
        """Whether the cell is among the records that count."""
        return any(r.key == (cell.row, cell.base, cell.seed) for r in self.records)


def read_results(path: Path, study: str) -> File:
    """What an earlier sitting left at ``path``; an empty file when there is none.

    Raises ``IntegrityError`` for a file that is damaged, of another study or of a later version.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return File(format=FORMAT, study=study)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error}") from None
    hint = "; move it away to begin a new one"
    try:
        body = json.loads(raw)
        found = File.model_validate(body)
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise IntegrityError(f"{path} does not hold a study's results ({reason}){hint}") from None
    if found.format > FORMAT:
        raise IntegrityError(
            f"{path} was written by a later version (format {found.format}, this one knows {FORMAT}); use that version"
            f"{hint}"
        )
    if found.study != study:
        raise IntegrityError(f"{path} holds the study {found.study!r}, not {study!r}{hint}")
    return found


def merge(
    here: Found,
    kept: File,
    current: Mapping[str, str],
    cells: Sequence[Cell],
    inputs: Mapping[Place, Digests] | None = None,
) -> Merged:
    """One record a cell: this store's, else the file's. ``current`` has the fingerprint of each row's spec of today.

    ``inputs`` has the digests of data and models that a row on a base starts from today. Where they are not known, this
    store's count, else those that the file names first.
    """
    known = dict(kept.specs) | here.specs
    readable = {identity: fingerprint(spec) for identity, spec in known.items()}
    wanted = {(cell.row, cell.base, cell.seed) for cell in cells}
    chosen: dict[tuple[str, str | None, int], CellRecord] = {}
    aside: list[Aside] = []
    expected_inputs = dict(inputs or {})
    everything = [*here.records, *kept.cells, *(each.cell for each in kept.set_aside)]
    for record in everything:
        expected = current.get(record.row)
        begun = (record.data, record.model, record.teacher)
        if record.key not in wanted or expected is None:
            why = "the study has no such cell"
        elif readable.get(record.spec) != expected:
            why = "its run had another spec than the row has now"
        elif begun != expected_inputs.setdefault(record.key[:2], begun):
            why = "it was run on other data, or from another base model"
        elif record.key in chosen:
            continue  # the same cell from an earlier sitting
        else:
            chosen[record.key] = record
            continue
        if all(record != other.cell for other in aside):
            aside.append(Aside(why=why, cell=record))
    ordered = [(cell.row, cell.base, cell.seed) for cell in cells]
    records = tuple(chosen[key] for key in ordered if key in chosen)
    used = {record.spec for record in (*records, *(each.cell for each in aside))}
    return Merged(
        records=records,
        aside=tuple(aside),
        specs={identity: spec for identity, spec in known.items() if identity in used},
    )


def file_body(study: str, merged: Merged, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What ``study.json`` holds: the summary for readers, then the records for the next sitting."""
    return {
        "format": FORMAT,
        "study": study,
        **summary,
        "specs": dict(sorted(merged.specs.items())),
        "cells": [record.model_dump(mode="json") for record in merged.records],
        "set_aside": [each.model_dump(mode="json") for each in merged.aside],
    }


def as_text(body: Mapping[str, Any]) -> str:
    """The file's text: one line a record, so that two sittings differ in the lines of their cells."""

    def lines(items: Iterable[str], opening: str, closing: str) -> str:
        inner = ",\n  ".join(items)
        return f"{opening}\n  {inner}\n {closing}" if inner else f"{opening}{closing}"

    dump: Callable[[Any], str] = lambda value: json.dumps(value, ensure_ascii=False)  # noqa: E731
    parts = []
    for key, value in body.items():
        if isinstance(value, list) and value:
            text = lines(map(dump, value), "[", "]")
        elif isinstance(value, dict) and key == "specs":
            text = lines((f"{dump(k)}: {dump(v)}" for k, v in value.items()), "{", "}")
        else:
            text = dump(value)
        parts.append(f" {dump(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
