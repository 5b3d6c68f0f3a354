"""``mstarctl demo``: data, base model, both runs, the table, ``results.json`` and ``report.html``."""

import json
import time
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from mstar.controller.loop import withdraw_cancel
from mstar.controller.prepare import prepare
from mstar.demo.specs import CONTINUOUS, MSTAR, base_folder, demo_specs
from mstar.errors import MissingDependency, StorageError
from mstar.storage.open import open_store
from mstarctl import show
from mstarctl.options import INTERRUPTED
from mstarctl.together import Together

ROWS = {"base": "base", "warm_up": "warm-up", "continuous": "continuous", "mstar": "M-STaR"}


def demo(out: Path, *, seed: int, from_scratch: bool, as_json: bool) -> None:
    """Run what is not done yet, then show the gain."""
    began = time.monotonic()
    out = out.resolve()
    try:
        data = _data(out)
        base = _scratch_base(out, as_json=as_json) if from_scratch else base_folder()
        results = _run_both(out, seed=seed, data=data, base=base, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; the same command goes on from the last finished step", err=True)
        raise typer.Exit(INTERRUPTED) from None
    results["seed"] = seed
    results["this_session_minutes"] = round((time.monotonic() - began) / 60, 2)
    path = out / f"results{_suffix(seed)}.json"
    try:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the results cannot be written to {path}: {error}") from None
    report = _report(out, seed)
    if as_json:
        typer.echo(
            json.dumps(results | {"results_json": str(path), "report_html": str(report)}, indent=1)
        )
        return
    _table(results)
    typer.echo(f"results  {path}\nreport   {report}")


def _suffix(seed: int) -> str:
    return f"-seed{seed}" if seed else ""


def _data(out: Path) -> Path:
    """The data set, written once; a half-written one is written again."""
    folder = out / "data"
    if (folder / "complete").exists():
        return folder
    try:
        from mstar.demo.dataset import write_dataset
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"the demo needs the package {error.name}; install mstar[demo], or run `make demo`"
        ) from None
    began = time.monotonic()
    try:
        paths = write_dataset(folder)
        (folder / "complete").write_text("all splits are written\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the data set cannot be written to {folder}: {error}") from None
    show.errors.print(
        f"    data set of {len(paths)} splits written  {time.monotonic() - began:.1f} s"
    )
    return folder


def _scratch_base(out: Path, *, as_json: bool) -> Path:
    """Pre-train the base model; done once in this folder."""
    folder = out / "base"
    if (folder / "complete").exists():
        return folder
    from mstar.demo.pretrain import build_base

    try:
        with show.bar("pre-training", as_json=as_json) as tell:
            build_base(
                folder, progress=lambda phase, step, total, _: tell(step, total, f"{phase} steps")
            )
        (folder / "complete").write_text("pre-trained to the end\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the base model cannot be written to {folder}: {error}") from None
    return folder


def _run_both(out: Path, *, seed: int, data: Path, base: Path, as_json: bool) -> dict[str, Any]:
    """Both runs, side by side: each needs one core, and they share what the first of them has committed."""
    store = open_store(str(out / "store"))
    specs = demo_specs(seed=seed, store=str(out / "store"), data=data, base=base)
    names = {label: f"{label}{_suffix(seed)}" for label in specs}
    with show.working("checking data and model", as_json=as_json):
        runs = {
            label: prepare(store, spec.model_copy(update={"name": names[label]}))
            for label, spec in specs.items()
        }
    for name in names.values():
        withdraw_cancel(store, name)
    together = Together(store, runs[MSTAR], runs[CONTINUOUS])
    with show.reporters(["M-STaR     ", "continuous "], as_json=as_json) as reporters:
        together.advance(*reporters)
    from mstar.report.table import summarise

    return summarise(store, names)


def _report(out: Path, seed: int) -> Path:
    from mstar.report.page import write_report

    path = out / f"report{_suffix(seed)}.html"
    names = [f"{label}{_suffix(seed)}" for label in (CONTINUOUS, MSTAR)]
    write_report(open_store(str(out / "store")), names, path, now=time.time())
    return path


def _table(results: dict[str, Any]) -> None:
    table = Table(
        title="Greedy accuracy on the held-out test set", title_justify="left", pad_edge=False
    )
    for column in ("policy", "accuracy", "95 % interval", "Pass@16", "questions", "minutes"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    minutes = results["minutes_by_row"]
    for key, label in ROWS.items():
        row = results[key]
        interval = f"{row['low']:.1%} to {row['high']:.1%}"
        table.add_row(
            label,
            f"{row['accuracy']:.1%}",
            interval,
            f"{row['pass_at_16']:.1%}",
            str(row["n"]),
            f"{minutes[key]:.1f}",
        )
    show.output.print(table)
    work = results["work_minutes"]
    typer.echo(
        f"{results['minutes']:.1f} minutes, in which two processes did {work:.1f} minutes of work"
    )
