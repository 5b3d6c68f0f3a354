"""The command that lists recipes: which row of the paper each is, and the paper's numbers."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

import mstar
from mstar.errors import NotFound
from mstarctl.options import Output, OutputOption


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


def recipes(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="Where they are; ./recipes without.", show_default=False
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the recipes: which row of the paper each is, and the paper's numbers."""
    place = folder or _usual()
    if not place.is_dir():
        raise NotFound(f"no folder at {place}; pass the folder that holds recipes")
    found = read_recipes(place)
    if output is Output.JSON:
        typer.echo(json.dumps([asdict(recipe) for recipe in found], indent=1))
        return
    if not found:
        raise NotFound(
            f"no recipe in {place}: a recipe is a spec whose key paper names a row (docs/spec.md)"
        )
    _print(place, found)


def read_recipes(folder: Path) -> list[Recipe]:
    """Every spec in ``folder`` that says which row it is, by table and then by file.

    Raises ``SpecError`` naming the file when one is no valid spec.
    """
    from mstar.config import load_spec
    from mstar.report.views import describe

    found = []
    for path in sorted(folder.glob("*.yaml")):
        spec = load_spec(path)
        if spec.paper:
            fields = spec.paper.model_dump()
            found.append(Recipe(file=path.name, what=describe(spec), **fields))
    return sorted(found, key=lambda recipe: (recipe.table or 99, recipe.file))


WIDE = 130
"""Columns of a terminal in which there is room to say what each recipe does."""


def _usual() -> Path:
    """The folder beside this one's caller, or else that of the checkout this runs from."""
    for folder in (Path("recipes"), Path(mstar.__file__).parents[1] / "recipes"):
        if folder.is_dir():
            return folder
    raise NotFound(
        "no folder called recipes here; it is in the project's repository: pass its path, mstarctl recipes FOLDER"
    )


def _print(folder: Path, found: list[Recipe]) -> None:
    from rich.table import Table

    from mstarctl import show

    wide = show.output.width >= WIDE
    table = Table(title=f"Recipes in {folder}", title_justify="left", box=None, pad_edge=False)
    for column in ("recipe", "table", "row", "paper"):
        table.add_column(column, overflow="fold", no_wrap=column in {"recipe", "paper"})
    if wide:
        table.add_column("what it is", overflow="fold")
    for recipe in found:
        number = "" if recipe.table is None else str(recipe.table)
        what = [recipe.what] if wide else []
        table.add_row(recipe.file, number, recipe.row, recipe.paper, *what)
    show.output.print(table)
    for other in sorted(path for path in folder.iterdir() if any(path.glob("*.yaml"))):
        show.output.print(f"More: mstarctl recipes {other}")
