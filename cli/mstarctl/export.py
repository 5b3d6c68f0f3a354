"""``mstarctl export``: a checkpoint as a model folder for other tools."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated

import typer

from mstar.errors import DataError, SpecError
from mstarctl.options import INTERRUPTED, Output, OutputOption, StoreOption


def export(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to write.")],
    store: StoreOption = "runs",
    step: Annotated[
        str,
        typer.Option(help="A train step such as iter-03/train, last, or best (on validation)."),
    ] = "last",
    prm: Annotated[
        bool, typer.Option("--prm", help="The run's process reward model instead of its policy.")
    ] = False,
    license_: Annotated[
        str | None, typer.Option("--license", help="License for the model card; else unknown.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="scores.json of `mstarctl eval` on this model, for the card."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Write a model folder that transformers and vLLM load, with a model card that says where it comes from."""
    from mstar.export.choosing import choose
    from mstar.export.lineage import made_steps, read_benchmarks, trace
    from mstar.export.writing import export as write
    from mstarctl import show, work

    as_json = output is Output.JSON
    body = _read(scores) if scores else None
    if license_ is not None and not license_.strip():
        raise SpecError("--license is empty; give a license's name, or leave it out")
    opened = work.existing_store(store)
    run, steps = made_steps(opened, name)
    made = choose(name, steps, step, prm=prm)
    query = run.spec.prompts.query
    found = read_benchmarks(body, str(scores), made, query) if scores else []
    what = trace(run, steps, made, found)
    checked = importlib.util.find_spec("transformers") is not None
    try:
        with show.bar(f"exporting {what.checkpoint.name}", as_json=as_json) as tell:
            record = write(
                opened, what, to, license_=license_, open_folder=_opens if checked else _trusted, tell=tell
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; {to} is as it was", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        body = {key: record[key] for key in ("run", "step", "kind", "checkpoint")}
        typer.echo(json.dumps({"to": str(to), "opened": checked, **body}))
        return
    how = "it opens in transformers" if checked else "transformers is not here to open it"
    typer.echo(f"wrote {to}: {record['step']} of {name}, {len(record['files'])} files checked; {how}")  # fmt: skip


def _opens(folder: Path) -> None:
    from mstar.models.opening import open_folder

    open_folder(folder)


def _trusted(_: Path) -> None:
    """Where transformers is not installed, what the files themselves show has to do."""


def _read(path: Path) -> object:
    try:
        found: object = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"--scores {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"--scores {path} is no JSON: {error}") from None
    return found
