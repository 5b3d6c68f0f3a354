"""``mstarctl``: parse, call, print. A heavy package is imported by the command that needs it, never for help."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mstar.errors import MstarError
from mstarctl import (
    analyse,
    benchmarks,
    comparing,
    data,
    export,
    plan,
    recipes,
    stages,
    tracking,
    upkeep,
)
from mstarctl.options import (
    ContextOption,
    FreshOption,
    NamespaceOption,
    Output,
    OutputOption,
    StoreOption,
)

app = typer.Typer(
    name="mstarctl",
    help="Self-evolving training of vision-language models (M-STaR): run it, watch it, look at what came out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(stages.app, name="stage")
app.add_typer(analyse.app, name="analyse")
app.add_typer(data.app, name="data")


class Only(StrEnum):
    """Which objects ``render`` prints."""

    ALL = "all"
    CONTROLLER = "controller"
    STEPS = "steps"


RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")]
FileOption = Annotated[Path, typer.Option("--file", "-f", help="The run's spec, a YAML file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the spec: a.b=c."),
]
WaitOption = Annotated[
    bool, typer.Option("--wait", "-w", help="Follow the run to its end; exit as it ended.")
]
DefaultsOption = Annotated[
    Path | None,
    typer.Option(help="Defaults under the spec's cluster block: YAML, or the chart's ConfigMap."),
]


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        from mstar import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and the report.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of queries' order, sampling and selection.")
    ] = 0,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch",
            help="Pre-train the tiny base model anew instead of using the one shipped.",
        ),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Evolve a tiny vision-language model on real images, on this machine, and show the gain."""
    from mstarctl import teach

    teach.demo(out, seed=seed, from_scratch=from_scratch, as_json=output is Output.JSON)


@app.command()
def run(
    file: FileOption,
    local: Annotated[bool, typer.Option("--local", help="Run on this machine.")] = False,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything here, show what would be made, make nothing."
        ),
    ] = False,
    server_dry_run: Annotated[
        bool,
        typer.Option("--server-dry-run", help="The same, and ask the cluster about each object."),
    ] = False,
    wait: WaitOption = False,
    fresh: FreshOption = False,
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Start a run in the cluster (or here, with --local), or go on with it when it is there already."""
    as_json = output is Output.JSON
    if local and server_dry_run:
        raise typer.BadParameter("--server-dry-run asks a cluster; with --local use --dry-run")
    if local:
        from mstarctl import work

        work.run(file, overrides or [], dry_run=dry_run, fresh=fresh, as_json=as_json)
        return
    from mstarctl import cluster

    cluster.submit(
        file,
        overrides or [],
        cluster.Target(context=context, namespace=namespace),
        dry_run=dry_run,
        server_dry_run=server_dry_run,
        wait=wait,
        fresh=fresh,
        as_json=as_json,
    )


@app.command()
def render(
    file: FileOption,
    overrides: SetOption = None,
    defaults: DefaultsOption = None,
    only: Annotated[Only, typer.Option(help="Which objects.")] = Only.ALL,
) -> None:
    """Print every object of a run as YAML, and ask no cluster."""
    from mstarctl import objects

    objects.render(file, overrides or [], defaults=defaults, only=only.value)


@app.command()
def upload(
    file: FileOption,
    overrides: SetOption = None,
    defaults: DefaultsOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Store a run's data, model and spec, and start nothing."""
    from mstarctl import work

    work.upload(file, overrides or [], defaults=defaults, as_json=output is Output.JSON)


@app.command()
def resume(
    name: RunArgument,
    store: StoreOption = "runs",
    local: Annotated[
        bool | None,
        typer.Option(
            "--local/--cluster", help="Where; without it, where the run was last started."
        ),
    ] = None,
    wait: WaitOption = False,
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Go on with a stored run from its last commit, also after it was cancelled, also in another cluster."""
    from mstarctl import work

    work.resume(
        store,
        name,
        local=local,
        wait=wait,
        context=context,
        namespace=namespace,
        as_json=output is Output.JSON,
    )


@app.command()
def wait(
    name: RunArgument,
    store: StoreOption = "runs",
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Follow a run to its end; the exit code says how it ended."""
    from mstarctl import work

    work.wait(store, name, context=context, namespace=namespace, as_json=output is Output.JSON)


@app.command()
def cancel(
    name: RunArgument,
    store: StoreOption = "runs",
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Stop a run; what is committed stays, and no Job and no pod does."""
    from mstarctl import work

    work.cancel(store, name, context=context, namespace=namespace, as_json=output is Output.JSON)


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Name of a run; all of them without.")
    ] = None,
    store: StoreOption = "runs",
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say where runs are, and why one stands still."""
    from mstarctl import work

    work.status(store, name, context=context, namespace=namespace, as_json=output is Output.JSON)


@app.command()
def logs(
    name: RunArgument,
    step: Annotated[
        str | None, typer.Argument(metavar="[STEP]", help="A step, such as iter-01/train.")
    ] = None,
    store: StoreOption = "runs",
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print the logs of a run's steps, or of one step; they stay when pods are gone."""
    from mstarctl import work

    work.logs(
        store, name, step, context=context, namespace=namespace, as_json=output is Output.JSON
    )


@app.command()
def report(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs to show side by side.")
    ],
    store: StoreOption = "runs",
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path(
        "report.html"
    ),
    output: OutputOption = Output.TEXT,
) -> None:
    """Write one self-contained HTML page about runs."""
    from mstarctl import work

    work.report(store, names, out, as_json=output is Output.JSON)


app.command()(upkeep.doctor)
app.command()(plan.plan)
app.command()(upkeep.gc)
app.command()(recipes.recipes)
app.command()(comparing.study)
app.command("eval")(benchmarks.evaluate)
app.command()(export.export)
app.command()(tracking.track)


@app.command(hidden=True)
def pod(
    store: Annotated[str, typer.Option(help="The store's address.")],
    request: Annotated[str, typer.Option(help="Key of the request.")],
) -> None:
    """Do a pod's part of a step: what a stage's image runs in a cluster."""
    from mstar import logs as logging_
    from mstar.stages.pod import main as serve

    logging_.set_up()
    raise typer.Exit(serve(store, request))


@app.command(hidden=True)
def controller(name: RunArgument, store: StoreOption = "runs") -> None:
    """Advance a run from within the cluster: what the controller's image runs."""
    from mstar import logs as logging_
    from mstar.controller.serve import main as serve

    logging_.set_up()
    raise typer.Exit(serve(store, name))


@app.command()
def selftest(
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", help="A store to use; else a folder that goes away."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run one tiny stage to its commit, to see that this installation and its store work."""
    from mstarctl import health

    health.selftest(store, as_json=output is Output.JSON)


def main() -> None:
    """The console script: an error that a person can put right is one message and its exit code."""
    try:
        app()
    except MstarError as error:
        typer.echo(f"mstarctl: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (head, less) went away; what it did not want is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
