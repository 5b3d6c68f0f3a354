"""Commands that compare runs."""

from pathlib import Path
from typing import Annotated

import typer

from mstarctl.options import ContextOption, FreshOption, NamespaceOption, Output, OutputOption


def study(
    file: Annotated[Path, typer.Option("--file", "-f", help="The study, a YAML file.")],
    local: Annotated[
        bool, typer.Option("--local/--cluster", help="Run the cells on this machine, or there.")
    ] = False,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Cells at once; else the study's parallel.")
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; say what the results so far say.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for study.json and study.html; else where the study's file is."),
    ] = None,
    fresh: FreshOption = False,
    context: ContextOption = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Run a grid of recipes, bases and seeds, or what is left of it, and compare the rows."""
    from mstarctl import study as work

    work.study(
        file,
        local=local,
        parallel=parallel,
        report_only=report_only,
        out=out,
        fresh=fresh,
        context=context,
        namespace=namespace,
        as_json=output is Output.JSON,
    )
