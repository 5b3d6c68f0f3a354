"""The study file: rows (recipes), bases and seeds, typed; a mistake is one ``SpecError`` that names the key."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mstar.config import expanded, read_yaml
from mstar.errors import SpecError
from mstar.mistakes import kind_of, mistakes, nearest
from mstar.record import Record

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")

SET_BY_STUDY = ("name", "seed", "store")
"""Keys of a run's spec that a study decides itself."""


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} becomes part of run names: lower-case letters, digits, '-', '_' and '.', with a letter or digit "
            "at both ends"
        )
    return name


class Row(Record):
    """One row: a recipe with overrides of its own. ``name`` is by default the recipe file's, without its ending."""

    recipe: str
    name: str = ""
    set: tuple[str, ...] = ()

    _name = field_validator("name")(lambda name: _named(name) if name else name)


class Base(Record):
    """A base model: the folder (or address) that ``model`` of each row's spec is replaced by."""

    name: str
    model: str

    _name = field_validator("name")(_named)


By = Literal[
    "accuracy",
    "updates",
    "queries",
    "pass@k",
    "pass@k lost",
    "exploration",
    "exploration lost",
    "reward-pass@2",
]


class Claim(Record):
    """Something the study is to show: that ``row`` has more than the row ``over``, of what ``by`` says.

    ``accuracy``: greedy on the test questions, last policy. The others are on validation: ``updates`` and ``queries``
    greedy at equal amounts of them; ``pass@k``, ``exploration`` (Pass@K − Greedy) and ``reward-pass@2`` of the last
    policy, at the temperature in use; ``… lost``: how much of it went since the first policy, where ``over`` may be
    left out and the claim is that any went.
    """

    name: str = Field(min_length=1)
    says: str = Field(min_length=1)
    row: str
    over: str | None = None
    by: By = "accuracy"
    paper: str = ""

    @model_validator(mode="after")
    def _is_over_something(self) -> Self:
        if self.over is None and not self.by.endswith(" lost"):
            raise ValueError(f"by {self.by} a row has more than another: name that one as over")
        return self


class StudyFile(Record):
    """The file as a person writes it (docs/study.md)."""

    name: str
    store: str = "runs"
    seeds: tuple[int, ...] = (0, 1, 2)
    bases: tuple[Base, ...] = ()
    baseline: str | None = None
    rows: tuple[Row, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()
    set: tuple[str, ...] = ()
    parallel: int = Field(2, ge=1)

    _name = field_validator("name")(_named)

    @field_validator("rows", mode="before")
    @classmethod
    def _paths(cls, rows: Any) -> Any:
        """A row may be just the path of its recipe."""
        if not isinstance(rows, list):
            return rows
        return [{"recipe": row} if isinstance(row, str) else row for row in rows]

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise ValueError(
                f"expected one or more different seeds, none below 0, found {list(seeds)}"
            )
        return seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study, ready to be run: every row has a name, and paths are relative to ``folder``, the study file's own."""

    name: str
    folder: Path
    store: str
    seeds: tuple[int, ...]
    bases: tuple[Base, ...]
    baseline: str | None
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    overrides: tuple[str, ...]
    parallel: int

    def anchored(self, path: str) -> str:
        """A path of the file, whatever folder the command runs in; an address (``s3://…``, ``demo:…``) as it is."""
        is_address = "://" in path or path.startswith("demo:")
        return path if is_address else str(self.folder / expanded(path))

    def row(self, name: str) -> Row:
        """The row called ``name``, which must be one."""
        return next(row for row in self.rows if row.name == name)


def load_study(path: Path) -> Study:
    """The study in a YAML file. Raises ``SpecError`` naming each wrong key, what was expected and what was found."""
    file = _parse(_read(path), path)
    rows = tuple(_with_name(row, path) for row in file.rows)
    names = [row.name for row in rows]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(
            f"{path}: rows: two rows are called {', '.join(doubles)}; give one of them another name "
            "({recipe: …, name: …})"
        )
    bases = [base.name for base in file.bases]
    if len(set(bases)) < len(bases):
        raise SpecError(f"{path}: bases: two have the same name, found {', '.join(bases)}")
    if file.baseline is not None and file.baseline not in names:
        raise SpecError(
            f"{path}: baseline: no row is called {file.baseline!r}{nearest(file.baseline, names, 'there are')}"
        )
    for claim in file.claims:
        for name in filter(None, (claim.row, claim.over)):
            if name not in names:
                hint = nearest(name, names, "there are")
                raise SpecError(f"{path}: claims: {claim.name}: no row is called {name!r}{hint}")
    for override in (*file.set, *(each for row in rows for each in row.set)):
        _check_override(override, path, has_bases=bool(bases))
    return Study(
        name=file.name,
        folder=path.resolve().parent,
        store=file.store,
        seeds=file.seeds,
        bases=file.bases,
        baseline=file.baseline,
        rows=rows,
        claims=file.claims,
        overrides=file.set,
        parallel=file.parallel,
    )


def _read(path: Path) -> Any:
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"no study at {path}: pass the path of a YAML file with -f") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder: pass the path of a YAML file with -f") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {error}") from None


def _parse(raw: Any, path: Path) -> StudyFile:
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: expected keys and values, found {kind_of(raw)}")
    try:
        return StudyFile.model_validate(raw)
    except ValidationError as error:
        lines = "\n".join(mistakes(error, StudyFile, "study"))
        raise SpecError(f"{path} is not a valid study:\n{lines}") from None


def _with_name(row: Row, path: Path) -> Row:
    """The row with its name, which must be one also where it is the recipe's."""
    if row.name:
        return row
    name = Path(row.recipe).stem
    try:
        return row.model_copy(update={"name": _named(name)})
    except ValueError as error:
        raise SpecError(
            f"{path}: rows: the name of {row.recipe} cannot be the row's: {error}; give the row a name"
        ) from None


def _check_override(override: str, path: Path, *, has_bases: bool) -> None:
    key = override.partition("=")[0].strip()
    if key in SET_BY_STUDY:
        raise SpecError(
            f"{path}: set: {key} is the study's own to decide (its name, seeds and store), found {override!r}"
        )
    if key == "model" and has_bases:
        raise SpecError(f"{path}: set: model is decided by bases here, found {override!r}")
