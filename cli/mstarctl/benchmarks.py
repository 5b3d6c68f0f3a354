"""``mstarctl eval``: a model's scores on public benchmarks."""

import json
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mstar.errors import SpecError
from mstarctl.analyse import KEY_VARIABLE, endpoint_of
from mstarctl.options import INTERRUPTED, Output, OutputOption

if TYPE_CHECKING:
    from mstar.analysis.endpoint import Endpoint
    from mstar.benchmarks.judge import Judge
    from mstar.tasks import Prompt

PLACES = ("{question}", "{options}")


class Engine(StrEnum):
    """What samples."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


class Device(StrEnum):
    """Where it samples."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


def evaluate(
    model: Annotated[Path, typer.Option(help="Model folder, as save_pretrained writes it.")],
    benchmarks: Annotated[
        str,
        typer.Option(
            help="Of mathvista, m3cot, mmstar, mmstar-r, mmbench, mmbench-r, ai2d, ai2d-no-mask, with commas; or paper."
        ),
    ] = "paper",
    data: Annotated[
        Path, typer.Option(help="Folder with the published files, at any name.")
    ] = Path("benchmarks"),
    file: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="File of a benchmark that lies elsewhere."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for answers and scores; else eval-MODEL.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Template with {question}{options}, as in a spec; else the official prompts."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 1024,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many questions of each; no score to publish.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="What samples.")] = Engine.TRANSFORMERS,
    device: Annotated[Device, typer.Option(help="Where it samples.")] = Device.AUTO,
    rows: Annotated[int, typer.Option(min=1, help="Responses sampled at once.")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Most pixels of an image; a larger one is refused.")
    ] = 50_000_000,
    remote_code: Annotated[
        bool,
        typer.Option("--remote-code", help="Let Python code that lies in the model folder run."),
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Base of an OpenAI-compatible API that reads answers where the official rule reads none.",
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge's model.")] = None,
    judge_key_env: Annotated[
        str | None,
        typer.Option(help=f"Variable that holds the judge's key; else {KEY_VARIABLE}, if set."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Score a model on public benchmarks, greedily, by their official rules; the same command goes on after a stop."""
    from mstar.benchmarks.official import summary_text
    from mstar.benchmarks.registry import find_benchmarks, locate
    from mstar.execution import Execution
    from mstar.models.family import model_type
    from mstar.stages.benchmarking import Asking, evaluate_benchmarks
    from mstarctl import show

    as_json = output is Output.JSON
    names = [name.strip() for name in benchmarks.split(",") if name.strip()]
    sources = locate(find_benchmarks(names), data, _files(file or []))
    model_type(model)
    folder = out or Path(f"eval-{model.resolve().name}")
    asking = Asking(
        max_new_tokens=max_new_tokens,
        prompt=_prompt(prompt),
        limit=limit,
        pixels_by="--max-pixels",
    )
    execution = Execution(
        engine=engine.value,
        device=device.value,
        sampling_rows=rows,
        threads=threads,
        max_pixels=max_pixels,
        remote_code=remote_code,
    )
    endpoint = endpoint_of(judge, judge_model, judge_key_env)
    reader = _judge(endpoint, folder) if endpoint else None
    try:
        with show.bar(model.name or str(model), as_json=as_json) as tell:
            scores = evaluate_benchmarks(
                model,
                sources,
                folder,
                asking=asking,
                execution=execution,
                tell=tell,
                judge=reader,
            )
    except KeyboardInterrupt:
        typer.echo(
            "\ninterrupted; the same command goes on with the answers that are there", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        body = {"out": str(folder), "judge": reader.as_json() if reader else None}
        typer.echo(json.dumps(body | {"scores": [found.as_json() for found in scores]}))
        return
    for source, found in zip(sources, scores, strict=True):
        typer.echo(f"{found.title}\n{source.benchmark.show(found)}\n")
    typer.echo(summary_text([source.benchmark for source in sources], scores))
    if reader and reader.failed:
        typer.echo(
            f"the judge failed at {reader.failed} of {reader.asked} ({reader.why}); the fallback read those, and the "
            "same command asks the judge again"
        )
    typer.echo(f"wrote {folder / 'scores.json'}")


def _files(given: Sequence[str]) -> dict[str, Path]:
    found = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise SpecError(
                f"--file {text!r}: expected NAME=PATH, such as mathvista=testmini.parquet"
            )
        if not Path(path).exists():
            raise SpecError(f"--file {text!r}: there is no {path}")
        found[name] = Path(path)
    return found


def _prompt(template: str | None) -> "Prompt | None":
    if template is None:
        return None
    from mstar.tasks import Prompt

    lacking = [place for place in PLACES if place not in template]
    try:
        template.format(question="", options="")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise SpecError(
            f"--prompt: only {{question}} and {{options}} can be filled in ({error}); double other braces"
        ) from None
    if lacking:
        raise SpecError(f"--prompt lacks {' and '.join(lacking)}: {template!r}")
    return Prompt(template=template)


def _judge(endpoint: "Endpoint", folder: Path) -> "Judge":
    from mstar.benchmarks.judge import Judge

    identity = f"{endpoint.url} {endpoint.model}"
    return Judge(partial(_reply, endpoint), identity, folder / "judge.jsonl")


def _reply(endpoint: "Endpoint", prompt: str) -> str:
    """One reply; ``NoReply`` when the endpoint failed at this one. An endpoint that refuses ends the command."""
    from mstar.analysis.endpoint import JudgeFailed, JudgeRefused
    from mstar.benchmarks.judge import NoReply

    try:
        request = endpoint.request([{"role": "user", "content": prompt}])
        return endpoint.reply(request, lambda text: bool(text.strip()))
    except JudgeFailed as error:
        raise NoReply(str(error)) from None
    except JudgeRefused as error:
        raise SpecError(
            f"the judge {endpoint.model} at {endpoint.url}: {error}; without --judge the rules alone decide"
        ) from None
