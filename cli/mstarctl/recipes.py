"""What ``mstarctl recipes`` lists: every recipe of a folder, which row of the paper it is, and the paper's numbers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.table import Table

import mstar
from mstar.config import load_spec
from mstar.errors import NotFound
from mstar.report.views import describe
from mstarctl import show


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One row of the list. The paper's accuracies are in percent, and None where it gives none."""

    file: str
    what: str
    table: int | None
    row: str
    in_domain: float | None
    mathvista: float | None

    @property
    def paper(self) -> str:
        """The paper's numbers, MathV360K's test and MathVista."""
        found = (self.in_domain, self.mathvista)
        if found == (None, None):
            return ""
        return " / ".join("–" if value is None else f"{value:.1f}" for value in found)


def list_recipes(folder: Path | None, *, as_json: bool) -> None:
    """Print them, those of the paper's tables first."""
    place = folder or _usual()
    if not place.is_dir():
        raise NotFound(f"no folder at {place}; pass the folder that holds recipes")
    found = read_recipes(place)
    if as_json:
        typer.echo(json.dumps([asdict(recipe) for recipe in found], indent=1))
        return
    if not found:
        raise NotFound(
            f"no recipe in {place}: a recipe is a spec whose key paper names a row (docs/spec.md)"
        )
    show.output.print(_table(place, found))


def read_recipes(folder: Path) -> list[Recipe]:
    """Every spec below ``folder`` that says which row it is, by table and then by file.

    Raises ``SpecError`` naming the file when one is no valid spec.
    """
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        spec = load_spec(path)
        if spec.paper:
            fields = spec.paper.model_dump()
            file = path.relative_to(folder).as_posix()
            found.append(Recipe(file=file, what=describe(spec), **fields))
    return sorted(found, key=lambda r: (r.file.count("/"), r.table or 99, r.file))


def _usual() -> Path:
    """The folder beside this one's caller, or else that of the checkout this runs from."""
    for folder in (Path("recipes"), Path(mstar.__file__).parents[1] / "recipes"):
        if folder.is_dir():
            return folder
    raise NotFound(
        "no folder called recipes here; it is in the project's repository: pass its path, mstarctl recipes FOLDER"
    )


def _table(folder: Path, found: Sequence[Recipe]) -> Table:
    table = Table(title=f"Recipes in {folder}", title_justify="left")
    for column in ("recipe", "table", "row", "paper"):
        table.add_column(column, no_wrap=column in {"recipe", "paper"})
    table.add_column("what it is", overflow="fold")
    for recipe in found:
        number = "" if recipe.table is None else str(recipe.table)
        table.add_row(recipe.file, number, recipe.row, recipe.paper, recipe.what)
    return table
