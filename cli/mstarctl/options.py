"""Options that many commands have."""

from enum import StrEnum
from typing import Annotated

import typer

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


class Output(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="Print for people or for programs.")
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        envvar="MSTAR_STORE",
        help="Folder or s3://bucket/prefix where runs are kept.",
    ),
]
ContextOption = Annotated[
    str | None, typer.Option("--context", help="Context of the kubeconfig; else its current one.")
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; else the spec's, else the context's."),
]

FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Make every step anew; adopt none that others committed.")
]
