"""``mstarctl study``: run what is not done yet, then compare the rows; the same command again goes on."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from mstar.config import RunSpec
from mstar.errors import MstarError
from mstar.executors.local import LocalExecutor
from mstar.recipe import Inputs
from mstar.report.document import write_whole
from mstar.storage.open import open_store
from mstar.storage.store import Store
from mstar.study.board import Board
from mstar.study.collect import Found, Trouble, gather
from mstar.study.grid import Cell, cells, described, fingerprint, spec_of
from mstar.study.page import render
from mstar.study.results import (
    Digests,
    Merged,
    Place,
    as_text,
    file_body,
    merge,
    read_results,
)
from mstar.study.runner import Here, Site, inputs_of, plan_cells, run_cells
from mstar.study.spec import Study, load_study
from mstar.study.summary import Summary, summarise, summary_body
from mstarctl import show, study_view
from mstarctl.inputs import in_place
from mstarctl.options import INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A study with its cells, their specs by run name, and where its results go."""

    study: Study
    cells: Sequence[Cell]
    specs: Mapping[str, RunSpec]
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "study.json"

    @property
    def page(self) -> Path:
        return self.folder / "study.html"

    @property
    def current(self) -> dict[str, str]:
        """The fingerprint of each row's spec of today."""
        found = {}
        for cell in self.cells:
            if cell.row not in found:
                identity = fingerprint(described(self.specs[cell.run]))
                assert identity is not None, "a spec that was just parsed parses"
                found[cell.row] = identity
        return found


def study(
    file: Path,
    *,
    local: bool,
    parallel: int | None,
    report_only: bool,
    out: Path | None,
    fresh: bool,
    context: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Run the study's cells, here or in a cluster, and report; raises ``typer.Exit`` when a cell failed."""
    plan = load_study(file)
    found = cells(plan)
    specs = {cell.run: spec_of(plan, cell, fresh=fresh) for cell in found}
    grid = Grid(study=plan, cells=found, specs=specs, folder=(out or plan.folder).resolve())
    if report_only:
        _say(grid, *_write(grid, _stored(grid), {}, ()), as_json=as_json)
        return
    kept = read_results(grid.results, plan.name)
    at_once = parallel or plan.parallel
    store = open_store(plan.anchored(plan.store))
    if not local:
        from mstarctl import objects

        objects.check_store(store.url)
    specs = {run: in_place(spec, as_json=as_json) for run, spec in specs.items()}
    with show.working("checking data and models", as_json=as_json):
        inputs = inputs_of(store, specs)
        places = _places(grid, inputs)
        merged = merge(gather(store, found), kept, grid.current, found, places)
    board = Board(found, at_once)
    todo = [cell for cell in found if not merged.has(cell)]
    for cell in found:
        if merged.has(cell):
            board.keep(cell)
    if todo and len(todo) < len(found) and not as_json:
        typer.echo(f"{len(found) - len(todo)} of {len(found)} cells are done already", err=True)
    plan_cells(board, store, todo, specs, inputs)
    site = _site(store, board, local=local, context=context, namespace=namespace)
    try:
        with study_view.display(board, as_json=as_json) as told:

            def kept_and_told(cell: Cell) -> None:
                told(cell)
                # The file is the study's memory: whatever ends this command, it has each cell that had ended.
                _write(grid, gather(store, [cell]), places, ())

            troubles = run_cells(
                todo, specs, inputs, site, board, parallel=at_once, told=kept_and_told
            )
    except KeyboardInterrupt:
        where = "" if local else "; the runs that were started go on in the cluster"
        typer.echo(
            f"\ninterrupted{where}; what is done is in {grid.results}, and the same command goes on from here",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    summary, merged = _write(grid, gather(store, found), places, troubles)
    _say(grid, summary, merged, as_json=as_json)
    if summary.troubles:
        raise typer.Exit(_exit_code(summary.troubles))


def _site(
    store: Store, board: Board, *, local: bool, context: str | None, namespace: str | None
) -> Site:
    if local:
        return Here(store, board, LocalExecutor)
    from mstarctl import cluster, study_cluster

    return study_cluster.There(store, board, cluster.Target(context=context, namespace=namespace))


def _places(grid: Grid, inputs: Mapping[str, Inputs]) -> dict[Place, Digests]:
    """Digests of data and models by row and base."""
    found: dict[Place, Digests] = {}
    for cell in grid.cells:
        begun = inputs[cell.run]
        teacher = begun.teacher.digest if begun.teacher else None
        found[cell.row, cell.base] = (begun.data.digest, begun.model.digest, teacher)
    return found


def _stored(grid: Grid) -> Found:
    """What the study's store has; nothing where there is no store on this machine."""
    url = grid.study.anchored(grid.study.store)
    if "://" not in url and not Path(url).is_dir():
        return Found()
    return gather(open_store(url), grid.cells)


def _write(
    grid: Grid, here: Found, places: Mapping[Place, Digests], troubles: Sequence[Trouble]
) -> tuple[Summary, Merged]:
    """Add what is ``here`` to the results as they are on disk now, and write both files."""
    kept = read_results(grid.results, grid.study.name)
    merged = merge(here, kept, grid.current, grid.cells, places)
    told = {trouble.cell.run: trouble for trouble in (*here.troubles, *troubles)}
    summary = summarise(grid.study, grid.cells, grid.specs, merged, list(told.values()))
    results = as_text(file_body(grid.study.name, merged, summary_body(summary)))
    write_whole(grid.results, results.encode())
    write_whole(grid.page, render(summary, now=time.time()).encode())
    return summary, merged


def _say(grid: Grid, summary: Summary, merged: Merged, *, as_json: bool) -> None:
    if as_json:
        files = {"study_json": str(grid.results), "study_html": str(grid.page)}
        typer.echo(json.dumps(summary_body(summary) | files, indent=1))
        return
    study_view.table(summary)
    study_view.claims(summary)
    study_view.note(summary, merged)
    typer.echo(f"results  {grid.results}\npage     {grid.page}")


def _exit_code(troubles: Sequence[Trouble]) -> int:
    """The code that all failed cells share, else the one of any error."""
    codes = {trouble.exit_code for trouble in troubles}
    return codes.pop() if len(codes) == 1 else MstarError.exit_code
