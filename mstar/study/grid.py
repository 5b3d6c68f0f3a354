"""The cells of a study, and the run that each of them is."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from mstar.config import HOW, RunSpec, expanded, load_spec, parse_spec, read_yaml
from mstar.errors import SpecError
from mstar.storage.manifest import canonical_json, sha256
from mstar.study.spec import Row, Study

LONGEST = 63
"""Characters of a run's name, at most: it becomes a name in a cluster."""

PATHS = ("data.path", "model", "teacher")
"""Keys of a run's spec that are paths on one machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row with one seed on one base (None where the recipe names its own): the run called ``run``."""

    row: str
    base: str | None
    seed: int
    run: str

    @property
    def label(self) -> str:
        """The cell in a few words."""
        base = f" on {self.base}" if self.base else ""
        return f"{self.row}{base}, seed {self.seed}"

    @property
    def pair(self) -> tuple[str | None, int]:
        """What it has in common with the cell of another row that it is compared with."""
        return self.base, self.seed


def cells(study: Study) -> list[Cell]:
    """All cells: the whole grid with the first seed, then with the next. Raises ``SpecError`` for unusable names.

    Seeds are outermost, so that a study which is ended early has whole seeds to compare.
    """
    bases: list[str | None] = [base.name for base in study.bases]
    found = [
        Cell(row=row.name, base=base, seed=seed, run=run_name(study.name, row.name, base, seed))
        for seed in study.seeds
        for base in bases or [None]
        for row in study.rows
    ]
    by_run: dict[str, Cell] = {}
    for cell in found:
        if len(cell.run) > LONGEST:
            raise SpecError(
                f"the run of {cell.label} would be called {cell.run!r}: {len(cell.run)} characters, at most {LONGEST} "
                "are possible; choose shorter names for study, row or base"
            )
        other = by_run.setdefault(cell.run, cell)
        if other is not cell:
            raise SpecError(
                f"{cell.label} and {other.label} would both be the run {cell.run!r}; rename a row or a base"
            )
    return found


def run_name(study: str, row: str, base: str | None, seed: int) -> str:
    """What the run of a cell is called."""
    return "-".join((study, row, *([base] if base else []), f"s{seed}"))


def spec_of(study: Study, cell: Cell, *, fresh: bool = False) -> RunSpec:
    """The spec of a cell's run: the row's recipe, the study's overrides, the row's, and what the cell decides.

    The cells of a ``fresh`` study adopt each other's steps and nobody else's.
    Raises ``SpecError`` naming the row.
    """
    row = study.row(cell.row)
    decided: dict[str, object] = {
        "name": cell.run,
        "seed": cell.seed,
        "store": study.anchored(study.store),
    }
    if fresh:
        decided["fresh"] = study.name
    if cell.base is not None:
        base = next(base for base in study.bases if base.name == cell.base)
        decided["model"] = study.anchored(base.model)
    # A JSON value is a YAML value; through the overrides, a recipe need not name a model that a base replaces.
    overrides = [
        *_anchored(study, (*study.overrides, *row.set)),
        *(f"{key}={json.dumps(value)}" for key, value in decided.items()),
    ]
    try:
        spec = load_spec(_recipe(study, row), overrides)
    except SpecError as error:
        raise SpecError(f"row {row.name}: {error}") from None
    if spec.data.test is None:
        raise SpecError(
            f"row {row.name}: a study compares rows on the test split, but data.test is null; name the split"
        )
    return spec


def paper_of(spec: RunSpec) -> dict[str, Any] | None:
    """What the recipe says of the paper's row: table, row and the paper's numbers; None when it says nothing."""
    return spec.paper.model_dump(mode="json") if spec.paper else None


def described(spec: RunSpec) -> dict[str, Any]:
    """What decides a row's results, seed, base and places of files aside: comparable between machines."""
    fields = spec.model_dump(mode="json", exclude={*HOW, "fresh", "seed", "model"})
    del fields["data"]["path"]
    # Its place decides nothing, that there is one does.
    fields["teacher"] = spec.teacher and "teacher"
    return fields


def fingerprint(description: dict[str, Any]) -> str | None:
    """Hash of what ``described`` gives, as this version reads it; None when this version cannot.

    Keys that did not exist when it was written have their defaults, so that a new key makes nothing old.
    """
    data = {**description.get("data", {}), "path": "data"}
    raw = {**description, "data": data, "name": "any", "model": "model"}
    try:
        spec = parse_spec(raw, source="a kept spec")
    except SpecError:
        return None
    return sha256(canonical_json(described(spec)))


def _recipe(study: Study, row: Row) -> Any:
    return study.folder / expanded(row.recipe)


def _anchored(study: Study, overrides: Iterable[str]) -> list[str]:
    """Overrides whose paths are relative to the study file, as the others in it are."""
    found = []
    for override in overrides:
        key, _, text = override.partition("=")
        if key.strip() in PATHS:
            try:
                value = read_yaml(text)
            except yaml.YAMLError:
                value = None  # load_spec says what is wrong with it
            if isinstance(value, str):
                found.append(f"{key}={json.dumps(study.anchored(value))}")
                continue
        found.append(override)
    return found
