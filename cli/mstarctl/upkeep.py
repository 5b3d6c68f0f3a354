"""Commands that look after a store."""

from typing import Annotated

import typer

from mstarctl.options import Output, OutputOption, StoreOption


def gc(
    store: StoreOption = "runs",
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Leave alone what is younger: 12h, 7d.")
    ] = "1d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    drop_trainer_state: Annotated[
        bool,
        typer.Option(
            "--drop-trainer-state",
            help="Also delete the optimizer state of finished runs' iterations, except the last one's.",
        ),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete what no run refers to and what killed processes left in a store."""
    from mstarctl import keep

    keep.gc(
        store,
        older_than,
        dry_run=dry_run,
        yes=yes,
        drop_trainer_state=drop_trainer_state,
        as_json=output is Output.JSON,
    )
