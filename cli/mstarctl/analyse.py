"""``mstarctl analyse``: what a finished run shows beyond its report."""

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mstar.errors import MissingDependency, SpecError
from mstarctl.options import INTERRUPTED, Output, OutputOption, StoreOption

if TYPE_CHECKING:
    from rich.table import Table

    from mstar.analysis.endpoint import Endpoint
    from mstar.analysis.judging import Cost
    from mstar.analysis.preferring import Rater
    from mstar.analysis.records import Analysis
    from mstar.analysis.whole import Judge
    from mstar.data.splits import Sample

KEY_VARIABLE = "MSTAR_JUDGE_KEY"

app = typer.Typer(help="Look closer at what a run has made.", no_args_is_help=True)


@app.callback()
def _analyse() -> None:
    """Look closer at what a run has made."""


@app.command()
def prm(
    name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")],
    store: StoreOption = "runs",
    samples: Annotated[int, typer.Option(min=1, max=1024, help="Samples a question.")] = 64,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Questions; else as many as the run evaluates on.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split; else the run's validation.")] = None,
    policy: Annotated[
        str, typer.Option(help="Whose responses: warm-up, final or an iteration as iter-03.")
    ] = "warm-up",
    judge: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Base of an OpenAI-compatible API that rates relevance."),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's model.")] = None,
    judge_key_env: Annotated[
        str | None,
        typer.Option(help=f"Variable that holds the judge's key; else {KEY_VARIABLE}, if set."),
    ] = None,
    judge_sample: Annotated[int, typer.Option(min=2, help="Responses to have judged.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples, draws, intervals.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for analysis.json and analysis.html; else analysis-RUN."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask the judge at once.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say what a run's process reward model is good for: verifier, reranker or filter (paper, figure 2)."""
    from mstar.analysis.asking import Ask
    from mstar.analysis.page import as_json, write_analysis
    from mstar.analysis.whole import analyse
    from mstar.executors.local import LocalExecutor
    from mstarctl import show, work

    quiet = output is Output.JSON
    endpoint = endpoint_of(judge, judge_model, judge_key_env)
    asked = _judge(endpoint, judge_sample, yes=yes)
    opened = work.existing_store(store)
    try:
        found = analyse(
            opened,
            name,
            Ask(policy=policy, samples=samples, queries=queries, split=split, seed=seed),
            executor=LocalExecutor,
            generator=_generator,
            judge=asked,
            watch=partial(show.bar, as_json=quiet),
        )
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; the same command goes on with what is stored", err=True)
        raise typer.Exit(INTERRUPTED) from None
    data, page = write_analysis(found, out or Path(f"analysis-{name}"), now=time.time())
    if quiet:
        typer.echo(as_json(found))
        return
    _print(found)
    typer.echo(f"wrote {data} and {page}")


def endpoint_of(url: str | None, model: str | None, variable: str | None) -> "Endpoint | None":
    """The endpoint of the judge that was asked for, checked before anything is sampled for it."""
    if url is None:
        if model or variable:
            raise SpecError(
                "--judge-model and --judge-key-env are of a judge: name its address with --judge URL"
            )
        return None
    from mstar.analysis.endpoint import Endpoint

    if not model:
        raise SpecError("--judge needs --judge-model, the name that the endpoint has for its model")
    key = os.environ.get(variable or KEY_VARIABLE)
    if variable and not key:
        raise SpecError(f"--judge-key-env names {variable}, but no such variable is set")
    return Endpoint(url, model, key)


def _judge(endpoint: "Endpoint | None", responses: int, *, yes: bool) -> "Judge | None":
    if endpoint is None:
        return None
    from mstar.analysis.whole import Judge

    return Judge(
        endpoint=endpoint,
        responses=responses,
        confirm=lambda cost: _confirm(cost, f"{endpoint.model} at {endpoint.url}", yes=yes),
    )


def _confirm(cost: "Cost", who: str, *, yes: bool) -> str | None:
    """Show what asking takes; why not to, if somebody says no or nobody is there to ask."""
    typer.echo(
        f"judge {who}: {cost.requests} requests ({cost.cached} known already), about {cost.prompt_tokens} tokens "
        f"to read and at most {cost.reply_tokens} to write",
        err=True,
    )
    if yes:
        return None
    if not _is_terminal():
        return "nobody was there to confirm its cost, and --yes was not given"
    return None if typer.confirm("Ask it?", err=True) else "its cost was declined"


def _is_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()


def _generator(sample: "Sample") -> "Rater | None":
    """The teaching task's generator, where its packages are installed."""
    try:
        from mstar.demo.relevance import generator

        return generator(sample)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"the teaching task's generator needs the package {error.name}; install mstar[demo]"
        ) from None


def _print(found: "Analysis") -> None:
    from mstar.analysis.words import sentences
    from mstarctl import show

    if found.verification.greedy:
        typer.echo(f"greedy: {found.verification.greedy.value:.1%}")
    for table in (_curves(found), _contrasts(found), _survivals(found)):
        show.output.print(table)
        typer.echo()
    for sentence in sentences(found):
        typer.echo(sentence)
    for missing in found.missing:
        typer.echo(f"missing: {missing.what}: {missing.why}")


def _curves(found: "Analysis") -> "Table":
    from mstar.analysis.sections import CURVES

    table = _table("N", *CURVES.values(), title=found.sampled.label)
    for place, size in enumerate(found.verification.sizes):
        values = (found.verification.curves[name][place] for name in CURVES)
        table.add_row(str(size), *(f"{value.value:.1%}" for value in values))
    return table


def _contrasts(found: "Analysis") -> "Table":
    from mstar.analysis.words import MEASURES, level, of_measure

    table = _table("of a response", f"Top-{found.top}", "others", "difference (95 %)", "questions")
    for name, contrast in found.sampled.contrasts.items():
        means = (level(name, contrast.top.value), level(name, contrast.other.value))
        difference = of_measure(name, contrast.difference)
        table.add_row(MEASURES[name], *means, difference, str(contrast.difference.n))
    return table


def _survivals(found: "Analysis") -> "Table":
    table = _table("right responses", "all kept", "some kept", "none kept")
    for survival in found.sampled.survivals:
        rule = f"Top-{survival.k}" if survival.k else f"above {survival.alpha:g}"
        shares = (survival.all, survival.some, survival.none)
        table.add_row(rule, *(f"{share.value:.1%}" for share in shares))
    return table


def _table(first: str, *others: str, title: str | None = None) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
