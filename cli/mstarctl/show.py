"""What the commands print: words for people, JSON for programs. Progress goes to standard error, results to output."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from mstar.config import RunSpec
from mstar.controller.status import Overview, Phase, Status
from mstar.executors.base import Observation
from mstar.history import Entry
from mstar.recipe import Inputs, Step, planned_names
from mstar.report.scale import duration
from mstar.storage.manifest import Manifest

errors = Console(stderr=True, highlight=False)
output = Console(highlight=False)

QUIET_SECONDS = 30


def message(text: str, body: Mapping[str, Any], *, as_json: bool) -> None:
    """One sentence, or its facts."""
    typer.echo(json.dumps(body) if as_json else text)


@contextmanager
def working(text: str, *, as_json: bool) -> Iterator[None]:
    """A spinner around work that has no measure."""
    if as_json or not errors.is_terminal:
        yield
        return
    with errors.status(text):
        yield


class Quiet:
    """A reporter for programs: one JSON line a finished step, on standard error."""

    def started(self, step: Step, index: int, planned: int, attempt: int, reason: str) -> None:
        if reason:
            self._line({"step": step.name, "attempt": attempt, "reason": reason})

    def progress(self, step: Step, observation: Observation) -> None:
        """Programs ask ``status``."""

    def finished(
        self, step: Step, index: int, planned: int, manifest: Manifest, entry: Entry
    ) -> None:
        self._line(
            {
                "step": step.name,
                "index": index,
                "of": planned,
                "seconds": entry.seconds,
                "adopted": entry.adopted,
            }
        )

    def told(self, status: Status) -> None:
        """Programs ask ``status``."""

    @staticmethod
    def _line(body: dict[str, Any]) -> None:
        typer.echo(json.dumps(body), err=True)


class Terminal:
    """A reporter for people: a live bar for the running step, one line for each finished one."""

    def __init__(self, progress: Progress, label: str = "") -> None:
        self._progress = progress
        self._label = label
        self._bar: TaskID | None = None

    def started(self, step: Step, index: int, planned: int, attempt: int, reason: str) -> None:
        if reason:
            errors.print(
                f"  [yellow]again[/]  {step.name}: attempt {attempt}, because {reason}",
                soft_wrap=True,
            )
        self._clear()
        self._bar = self._progress.add_task(
            f"{self._label}{index + 1}/{planned} {step.name}", total=None, unit="starting"
        )

    def progress(self, step: Step, observation: Observation) -> None:
        if self._bar is not None and observation.total:
            self._progress.update(
                self._bar,
                completed=observation.done,
                total=observation.total,
                unit=observation.unit,
            )

    def finished(
        self, step: Step, index: int, planned: int, manifest: Manifest, entry: Entry
    ) -> None:
        self._clear()
        took = "adopted" if entry.adopted else f"{entry.seconds:6.1f} s"
        errors.print(
            f"{self._label}{index + 1:>3}/{planned} {step.name:<17} {took:>9}  [dim]{summary(manifest.results)}[/]",
            soft_wrap=True,
        )

    def told(self, status: Status) -> None:
        """What a person needs is on the screen already."""

    def _clear(self) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None


@contextmanager
def reporter(*, as_json: bool) -> Iterator[Quiet | Terminal]:
    """The reporter that fits the output."""
    with reporters([""], as_json=as_json) as (only,):
        yield only


@contextmanager
def reporters(labels: Sequence[str], *, as_json: bool) -> Iterator[list[Quiet | Terminal]]:
    """Reporters for runs side by side, sharing one display; each line begins with its run's label."""
    if as_json:
        yield [Quiet() for _ in labels]
        return
    with _progress() as progress:
        yield [Terminal(progress, label) for label in labels]


@contextmanager
def bar(name: str, *, as_json: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar to tell ``(done, total, unit)``; where there is no terminal, a line now and then."""
    if as_json:
        yield lambda *_: None
        return
    if not errors.is_terminal:
        yield lines(name, errors.print)
        return
    with _progress() as progress:
        task = progress.add_task(name, total=None, unit="starting")
        yield lambda done, total, unit: progress.update(
            task, completed=done, total=total, unit=unit
        )


def lines(
    name: str, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int, str], None]:
    """What a bar shows, a line every half minute: what takes less says nothing."""
    last = clock()

    def tell(done: int, total: int, unit: str) -> None:
        nonlocal last
        if clock() - last >= QUIET_SECONDS:
            last = clock()
            write(f"{name}: {f'{done:,} of {total:,}' if total else f'{done:,}'} {unit}")

    return tell


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


def summary(results: Mapping[str, Any]) -> str:
    """The few numbers of a step's results that say how it went."""
    if scores := results.get("scores"):
        return ", ".join(f"{score['benchmark']} {score['accuracy']:.1%}" for score in scores)
    if greedy := results.get("greedy"):
        text = f"greedy {greedy['accuracy']:.1%} of {results['queries']}"
        return text + "".join(f", {_sampled(point)}" for point in results["sampled"][:1])
    if "verification" in results:
        widest = results["verification"][max(results["verification"], key=int)]
        return ", ".join(f"{name.replace('_', '-')} {value:.1%}" for name, value in widest.items())
    if "last_loss" in results:
        held = results.get("held_out")
        error = (
            f", held-out error {held['mse']:.4f} (mean: {held['mse_of_mean']:.4f})" if held else ""
        )
        return (
            f"{results['examples']} examples, {results['optimizer_steps']} steps, loss "
            f"{results['first_loss']:.3f} -> {results['last_loss']:.3f}{error}"
        )
    if "solved" in results:
        return f"{results['solved']}/{results['queries']} queries solved, {results['selected']} responses kept"
    if "mean_label" in results:
        return f"{results['steps']} steps, mean label {results['mean_label']:.2f}"
    if "selected" in results:
        return f"{results['right']} right, {results['wrong']} wrong kept"
    return f"{results.get('responses', 0)} responses, {results.get('tokens', 0)} tokens"


def _sampled(point: Mapping[str, Any]) -> str:
    passes = point["pass_at"]
    widest = max(passes, key=int)
    return f"pass@{widest} {passes[widest]:.1%} at T {point['temperature']:g}"


def manifest(found: Manifest, *, as_json: bool) -> None:
    """What a stage committed."""
    if as_json:
        typer.echo(
            json.dumps({"id": found.id, "digest": found.digest, "results": found.results}, indent=1)
        )
        return
    typer.echo(f"committed steps/{found.id}")
    typer.echo(f"  {summary(found.results)}")


def plan(spec: RunSpec, queries: Mapping[str, int], *, as_json: bool) -> None:
    """The resolved spec and the steps it asks for."""
    names = planned_names(spec, Inputs.unknown(queries))
    if as_json:
        body = {"spec": spec.model_dump(mode="json"), "queries": dict(queries), "steps": names}
        typer.echo(json.dumps(body, indent=1))
        return
    counted = ", ".join(f"{count} {split}" for split, count in queries.items())
    typer.echo(f"run {spec.name}: spec, data ({counted}) and model are fine; nothing was written.")
    typer.echo(f"{len(names)} steps into {spec.store}:")
    for index, name in enumerate(names, 1):
        typer.echo(f"{index:>4}  {name}")


def overview(found: Overview, *, as_json: bool, entries: Sequence[Entry] = ()) -> None:
    """Where one run is, and why it stands still."""
    if as_json:
        body = asdict(found) | {"steps": [_entry(entry) for entry in entries]}
        typer.echo(json.dumps(body, indent=1))
        return
    status = found.status
    typer.echo(
        f"run {found.run}: {status.phase.value}, {found.finished_steps} of {found.planned_steps} steps done"
    )
    if status.phase in {Phase.RUNNING, Phase.WAITING}:
        amount = f", {status.done} of {status.total} {status.unit}" if status.total else ""
        typer.echo(
            f"  now: {status.step} (attempt {status.attempt}{amount}; controller {found.controller})"
        )
    if status.why:
        typer.echo(f"  why: {status.why}")
    if adopted := [entry for entry in entries if entry.adopted]:
        saved = duration(sum(entry.saved for entry in adopted))
        typer.echo(f"  {len(adopted)} steps were adopted from other runs, which saved {saved}")
    for entry in entries[-5:]:
        took = "adopted" if entry.adopted else f"{entry.seconds:.1f} s"
        typer.echo(f"  {entry.index + 1:>4}  {entry.name:<20} {took}")


class Followed:
    """What was already said of a run that is being followed, so that each thing is said once."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._steps = 0
        self._why = ""

    def update(self, found: Overview, entries: Sequence[Entry]) -> None:
        """Say which steps were finished since, and what the run waits for now."""
        for entry in entries[self._steps :]:
            self._step(entry, found.planned_steps)
        self._steps = len(entries)
        why = found.status.why
        if why != self._why and why and found.status.phase in {Phase.WAITING, Phase.RUNNING}:
            body = {"phase": found.status.phase.value, "step": found.status.step, "why": why}
            self._say(f"  {found.status.phase.value}: {why}", body)
        self._why = why

    def failed(self, status: Status) -> int:
        """Say how the run ended; the exit code."""
        self._say(f"mstarctl: {status.phase.value}: {status.why}", asdict(status))
        return status.exit_code or 1

    def _step(self, entry: Entry, planned: int) -> None:
        took = "adopted" if entry.adopted else f"{entry.seconds:.1f} s"
        body = _entry(entry)
        self._say(f"{entry.index + 1:>3}/{planned} {entry.name:<17} {took:>9}", body)

    def _say(self, text: str, body: Mapping[str, Any]) -> None:
        typer.echo(json.dumps(body) if self._as_json else text, err=True)


def overviews(found: Sequence[Overview], *, as_json: bool) -> None:
    """A line for each run."""
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=1))
        return
    if not found:
        typer.echo("no runs in this store; --store names another (the demo's is runs/demo/store)")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("RUN", "PHASE", "STEPS", "NOW", "SECONDS"):
        table.add_column(column)
    for each in found:
        steps = f"{each.finished_steps}/{each.planned_steps}"
        table.add_row(
            each.run, each.status.phase.value, steps, each.status.step, f"{each.seconds:.0f}"
        )
    output.print(table)


def _entry(entry: Entry) -> dict[str, Any]:
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.finished_at))
    return {
        "index": entry.index,
        "name": entry.name,
        "id": entry.ref.id,
        "digest": entry.ref.digest,
        "adopted": entry.adopted,
        "seconds": entry.seconds,
        "saved": entry.saved,
        "finished": finished,
    }
