"""Benchmarks as a step of a run: the committed files are asked as ``mstarctl eval`` asks them."""

from typing import Any

from mstar.benchmarks.answers import tokens_in
from mstar.benchmarks.registry import Source, find_benchmarks
from mstar.stages.benchmarking import Asking, evaluate_benchmarks
from mstar.stages.context import Context
from mstar.stages.inputs import model_folder
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.reading import materialise, resolve
from mstar.tasks import BenchmarkTask

KEPT = ("*.answers.jsonl", "*.verdicts.jsonl", "*.txt")
"""What stays of an evaluation: every response, what was read of it, and scores as the official tools print them."""


def benchmarks_whole(
    task: BenchmarkTask, context: Context, writer: ArtifactWriter
) -> dict[str, Any]:
    """Score a policy on the task's benchmarks; ``results["scores"]`` has one entry a benchmark, in order.

    ``results["tokens"]`` counts what the policy wrote.
    """
    with context.timed("load"):
        policy = model_folder(context, task.model)
        files = materialise(context.store, resolve(context.store, task.data), "", context.scratch)
    sources = [
        Source(benchmark=found, files=tuple(sorted((files / found.base).iterdir())))
        for found in find_benchmarks(task.benchmarks)
    ]
    out = context.scratch / "benchmarks"
    with context.timed("ask"):
        scores = evaluate_benchmarks(
            policy,
            sources,
            out,
            asking=Asking(max_new_tokens=task.max_new_tokens, prompt=task.prompt),
            execution=context.execution,
            tell=context.tell,
        )
    tokens = sum(map(tokens_in, out.glob("*.answers.jsonl")))
    for path in sorted(path for pattern in KEPT for path in out.glob(pattern)):
        writer.add_file(path.name, path, move=True)
    return {"scores": [found.as_json() for found in scores], "tokens": tokens}
