"""``mstarctl stage``: the four stages, each on one task file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mstarctl.options import Output, OutputOption

app = typer.Typer(
    help="Run one stage on one task file: exactly what a stage's image runs.", no_args_is_help=True
)


class StageName(StrEnum):
    """The four stages."""

    GENERATE = "generate"
    SCORE = "score"
    TRAIN = "train"
    EVALUATE = "evaluate"


def _stage(name: StageName, task: Path, output: Output) -> None:
    from mstarctl import work

    work.stage(name.value, task, as_json=output is Output.JSON)


TaskOption = Annotated[
    Path, typer.Option("--task", help="A task file: JSON or YAML, see docs/stages.md.")
]


@app.command()
def generate(task: TaskOption, output: OutputOption = Output.TEXT) -> None:
    """Sample responses from a policy."""
    _stage(StageName.GENERATE, task, output)


@app.command()
def score(task: TaskOption, output: OutputOption = Output.TEXT) -> None:
    """Grade responses, score their steps, and keep what training needs."""
    _stage(StageName.SCORE, task, output)


@app.command()
def train(task: TaskOption, output: OutputOption = Output.TEXT) -> None:
    """Train a policy or a PRM."""
    _stage(StageName.TRAIN, task, output)


@app.command()
def evaluate(task: TaskOption, output: OutputOption = Output.TEXT) -> None:
    """Measure a policy."""
    _stage(StageName.EVALUATE, task, output)
