"""What ``mstarctl study`` shows: a live table of the rows at work, then the table of results."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mstar.core.comparison import Estimate
from mstar.report.scale import duration
from mstar.study.board import Board, CellState, State, counts
from mstar.study.compare import RowResult
from mstar.study.grid import Cell
from mstar.study.results import Merged
from mstar.study.summary import Summary
from mstarctl import show

LOOKS_A_SECOND = 2
OVER = (State.FINISHED, State.KEPT)


@contextmanager
def display(board: Board, *, as_json: bool) -> Iterator[Callable[[Cell], None]]:
    """Show the board until the block ends; what it yields is to be told of each cell that has ended."""
    began = time.monotonic()
    terminal = show.errors.is_terminal and not as_json

    def told(cell: Cell) -> None:
        state = next(each for each in board.snapshot() if each.cell == cell)
        if as_json:
            typer.echo(json.dumps(_as_record(board, state)), err=True)
        else:
            show.errors.print(_line(board, state), soft_wrap=True, markup=False)

    if not terminal:
        yield told
        return
    with Live(
        get_renderable=lambda: _live(board, time.monotonic() - began),
        console=show.errors,
        refresh_per_second=LOOKS_A_SECOND,
        transient=True,
    ):
        yield told


def _live(board: Board, seconds: float) -> Group:
    """A line for each row, and one for the whole."""
    states = board.snapshot()
    table = Table(box=None, pad_edge=False)
    for column in ("ROW", "CELLS", "STEPS", "NOW"):
        table.add_column(column, no_wrap=True)
    for row in dict.fromkeys(state.cell.row for state in states):
        own = [state for state in states if state.cell.row == row]
        over = sum(state.state in OVER for state in own)
        failed = sum(state.state is State.FAILED for state in own)
        # Not markup: what is printed above the table meanwhile may have it switched off.
        cells = Text(f"{over}/{len(own)}")
        if failed:
            cells.append(f" {failed} failed", style="red")
        working = [state for state in own if state.state is State.RUNNING]
        steps = ", ".join(f"{state.steps}/{state.planned}" for state in working)
        table.add_row(row, cells, steps, Text(", ".join(map(_now, working))))
    return Group(table, Text(f"{_whole(states)}, {duration(seconds)} so far, {_left(board)}"))


def _now(state: CellState) -> str:
    base = f"{state.cell.base} " if state.cell.base else ""
    part = f" {state.done}/{state.total} {state.unit}" if state.total else ""
    return f"{base}s{state.cell.seed} {state.step}{part}".rstrip()


def _whole(states: Iterable[CellState]) -> str:
    found = counts(states)
    over = sum(found[state] for state in OVER)
    failed = f", {found[State.FAILED]} failed" if found[State.FAILED] else ""
    return f"{over} of {sum(found.values())} cells done{failed}"


def _left(board: Board) -> str:
    left = board.seconds_left()
    if left is None:
        return "what is left cannot be told yet"
    return f"about {duration(left)} left" if left else "nothing left"


def _line(board: Board, state: CellState) -> str:
    """One finished (or failed) cell, for a log as for a terminal."""
    if state.state is State.FAILED:
        how = f"failed with exit code {state.exit_code}: {state.error}"
    else:
        how = (
            f"{state.state.value}, {state.steps} steps, {state.adopted} of them adopted, "
            f"{duration(state.seconds)}"
        )
    return f"{state.cell.label}: {how}\n  {_whole(board.snapshot())}, {_left(board)}"


def _as_record(board: Board, state: CellState) -> dict[str, object]:
    return {
        "run": state.cell.run,
        "state": state.state.value,
        "steps": state.steps,
        "adopted": state.adopted,
        "seconds": round(state.seconds, 3),
        "error": state.error,
        "exit_code": state.exit_code,
        "seconds_left": board.seconds_left(),
    }


def table(summary: Summary) -> None:
    """The rows with their intervals."""
    found = Table(
        title="Greedy accuracy on the test questions in per cent, with 95 % intervals",
        title_justify="left",
        pad_edge=False,
    )
    against = f"less {summary.baseline}" if summary.baseline else "difference"
    for column in ("row", "cells", "accuracy", "interval", against, "interval", "paper"):
        found.add_column(column, justify="left" if column == "row" else "right")
    for row in summary.rows:
        overall = row.overall.accuracy if row.overall else None
        found.add_row(
            row.name,
            f"{len(row.cells)}/{row.of}",
            f"{overall.mean * 100:.1f}" if overall else "–",
            _interval(overall, "{:.1f}"),
            f"{row.difference.mean * 100:+.1f}" if row.difference else "–",
            _interval(row.difference, "{:+.1f}"),
            _paper(row),
        )
    show.output.print(found)


def claims(summary: Summary) -> None:
    """A line for each claim, where the study makes any."""
    if not summary.claims:
        return
    found = Table(title="What was claimed, and what shows", title_justify="left", pad_edge=False)
    for column in ("claim", "it says", "points", "interval", "verdict"):
        found.add_column(column, justify="right" if column in {"points", "interval"} else "left")
    for judged in summary.claims:
        difference = judged.measured.difference if judged.measured else None
        found.add_row(
            judged.claim.name,
            judged.claim.says,
            f"{difference.mean * 100:+.1f}" if difference else "–",
            _interval(difference, "{:+.1f}"),
            judged.verdict.value,
        )
    show.output.print(found)


def note(summary: Summary, merged: Merged) -> None:
    """What is missing and why, what is set aside, and what adoption saved."""
    for trouble in summary.troubles:
        typer.echo(
            f"failed: {trouble.cell.label} (run {trouble.cell.run}), exit code {trouble.exit_code}: {trouble.error}",
            err=True,
        )
    rest = len(summary.missing) - len(summary.troubles)
    if rest:
        typer.echo(f"{rest} cells have no results yet")
    if summary.missing:
        typer.echo("run the study again to go on with what is missing")
    for aside in merged.aside:
        typer.echo(f"set aside: {aside.cell.run}, because {aside.why}", err=True)
    saved = summary.adoption
    if saved.steps:
        typer.echo(
            f"{saved.adopted} of {saved.steps} steps were adopted, which saved {duration(saved.saved)} of "
            f"{duration(saved.saved + saved.seconds)} step-time ({saved.share:.0%})"
        )


def _interval(found: Estimate | None, form: str) -> str:
    if found is None or found.low is None or found.high is None:
        return "–"
    return f"{form.format(found.low * 100)} to {form.format(found.high * 100)}"


def _paper(row: RowResult) -> str:
    numbers = [(row.paper or {}).get(key) for key in ("in_domain", "mathvista")]
    known = [f"{number:g}" for number in numbers if number is not None]
    return " / ".join(known) or "–"
