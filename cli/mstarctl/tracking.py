"""``mstarctl track``: what trackers lack of a run's curves, told at any time."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from mstar.errors import StorageError
from mstarctl.options import INTERRUPTED, Output, OutputOption, StoreOption


class To(StrEnum):
    """What may be told."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


def track(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")],
    store: StoreOption = "runs",
    to: Annotated[
        list[To] | None, typer.Option("--to", help="Tracker to tell; else those of the spec.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Project or experiment; else the spec's.")
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Tell everything anew, elsewhere than here as a new run."),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Tell trackers what they lack of a run's curves: also of one that was run without any."""
    from mstar.config import Tracking
    from mstar.history import load_run
    from mstar.tracking.packages import to_tell
    from mstar.tracking.process import Telling
    from mstarctl import show, work

    opened = work.existing_store(store)
    spec = load_run(opened, name).spec
    named = [each.value for each in to] if to else list(spec.tracking.to)
    tracking = to_tell(Tracking.model_validate({"to": named, "project": project or spec.tracking.project}))  # fmt: skip
    if not tracking.to:
        raise typer.BadParameter("the run's spec names no tracker; say which with --to")
    telling = Telling(opened.url, name, tracking, lambda _: None)
    try:
        with show.working(f"telling {', '.join(tracking.to)}", as_json=output is Output.JSON):
            telling.look(again=again)
            telling.close(None)
    except KeyboardInterrupt:
        telling.close(0)
        typer.echo("\ninterrupted; the same command tells the rest", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if telling.failed:
        said = "; ".join(f"{who}: {why}" for who, why in sorted(telling.failed.items()))
        raise StorageError(
            f"not all was told. {said}. Once that is put right, the same command tells the rest"
        )
    if output is Output.JSON:
        typer.echo(json.dumps({"run": name, "told": telling.told}))
        return
    for tracker, points in telling.told.items():
        typer.echo(f"{tracker}: {f'{points} points' if points else 'had everything'}")
    if "tensorboard" in tracking.to:
        typer.echo(f"look with: tensorboard --logdir {opened.url}/runs")
