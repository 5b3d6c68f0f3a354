"""From the store to what a report knows: histories and manifests are read and checked, nothing is computed anew."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mstar.errors import NotFound
from mstar.history import Entry, load_history, load_run
from mstar.recipe import planned_steps
from mstar.report.views import (
    Evaluation,
    HeldOut,
    Iteration,
    PrmView,
    RunView,
    Sampled,
    Selection,
    Share,
    StepView,
)
from mstar.storage import keys
from mstar.storage.manifest import Manifest
from mstar.storage.reading import open_part, resolve
from mstar.storage.store import Store
from mstar.tasks import TASK, GenerateTask, Task

ITERATION = re.compile(r"(?:iter-(\d+)|sft)/(evaluate|generate|score|train)")
"""Steps of an iteration. SFT, one pass over the answers, counts as iteration 1."""


def collect(store: Store, names: Sequence[str]) -> list[RunView]:
    """The runs called ``names``, each as far as it has come. Raises ``NotFound`` for a run that is not there."""
    histories = {name: load_history(store, name) for name in names}
    made = {
        entry.ref.id: entry.seconds
        for entries in histories.values()
        for entry in entries
        if not entry.adopted
    }
    return [_run(store, name, entries, made) for name, entries in histories.items()]


def elapsed_seconds(runs: Iterable[RunView]) -> float:
    """Seconds in which a step of these runs was at work: steps side by side count once, pauses not at all."""
    spans = sorted(
        (step.finished_at - step.seconds, step.finished_at)
        for run in runs
        for step in run.steps
        if not step.adopted
    )
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def work_seconds(runs: Iterable[RunView]) -> float:
    """Seconds that all the steps of these runs took together, each step counted once."""
    return sum({step.ref.id: step.seconds for run in runs for step in run.steps}.values())


def _run(store: Store, name: str, entries: Sequence[Entry], made: Mapping[str, float]) -> RunView:
    run = load_run(store, name)
    manifests = {entry.name: resolve(store, entry.ref) for entry in entries}
    steps = tuple(_step(entry, manifests[entry.name], made.get(entry.ref.id)) for entry in entries)
    tests = {
        step.partition("/")[0]: evaluation_of(manifest.results)
        for step, manifest in manifests.items()
        if step.endswith("/test")
    }
    return RunView(
        name=name,
        spec=run.spec,
        data=run.inputs.data,
        queries=run.inputs.queries,
        planned=planned_steps(run.spec),
        steps=steps,
        tests=tests,
        benchmarks={
            step.partition("/")[0]: {
                score["benchmark"]: score for score in manifest.results["scores"]
            }
            for step, manifest in manifests.items()
            if step.endswith("/benchmarks")
        },
        iterations=_iterations(store, manifests),
        prm=_prm(store, manifests),
        versions=next((m.versions for m in reversed(manifests.values()) if m.versions), {}),
    )


def _step(entry: Entry, manifest: Manifest, made: float | None) -> StepView:
    seconds = entry.seconds
    if entry.adopted:
        # Adopting took no time. Who made the step says what it took, or else its phases do.
        seconds = made if made is not None else sum(manifest.timings.values())
    return StepView(
        name=entry.name,
        ref=entry.ref,
        adopted=entry.adopted,
        seconds=seconds,
        finished_at=entry.finished_at,
        timings=manifest.timings,
        tokens=tokens_of(manifest.results),
        undecided=undecided_of(manifest.results),
    )


def tokens_of(results: Mapping[str, Any]) -> int | None:
    """Tokens that a step produced or trained on; None where it has none of its own."""
    if "sampled" in results:
        greedy = results["greedy"]["tokens"] if results["greedy"] else 0
        return int(greedy + sum(point["tokens"] for point in results["sampled"]))
    return int(results["tokens"]) if "tokens" in results else None


def undecided_of(results: Mapping[str, Any]) -> int | None:
    """Responses that got no verdict by the deadline of the answer check; None where it has no deadline."""
    if "sampled" in results:
        points = [*results["sampled"], *([results["greedy"]] if results["greedy"] else [])]
        known = [point["undecided"] for point in points if "undecided" in point]
        return sum(known) if known else None
    return int(results["undecided"]) if "undecided" in results else None


def evaluation_of(results: Mapping[str, Any]) -> Evaluation:
    """An evaluate step's results as a record."""
    queries, greedy = int(results["queries"]), results["greedy"]
    share = None
    if greedy:
        share = Share(value=greedy["accuracy"], low=greedy["low"], high=greedy["high"], n=queries)
    return Evaluation(
        queries=queries,
        samples=int(results["samples"]),
        greedy=share,
        sampled=tuple(
            Sampled(
                temperature=point["temperature"],
                accuracy=point["accuracy"],
                pass_at=dict(sorted((int(k), value) for k, value in point["pass_at"].items())),
                pass_minus_greedy=point["pass_minus_greedy"],
                reward_pass_at_2=point["reward_pass_at_2"],
            )
            for point in sorted(results["sampled"], key=lambda point: point["temperature"])
        ),
        verification={
            int(size): dict(shares)
            for size, shares in sorted(
                results.get("verification", {}).items(), key=lambda item: int(item[0])
            )
        },
    )


def _iterations(store: Store, manifests: Mapping[str, Manifest]) -> tuple[Iteration, ...]:
    found: dict[int, Iteration] = {}
    for name, manifest in manifests.items():
        match = ITERATION.fullmatch(name)
        if match is None:
            continue
        index, what = int(match[1] or 1), match[2]
        iteration = found.get(index, Iteration(index=index))
        results = manifest.results
        if what == "evaluate":
            iteration = replace(iteration, evaluation=evaluation_of(results))
        elif what == "generate":
            task = read_task(store, manifest.id)
            if isinstance(task, GenerateTask):
                iteration = replace(iteration, temperature=task.sampling.temperature)
        elif what == "score":
            fields = Selection.__dataclass_fields__
            selection = Selection(**{field: results[field] for field in fields})
            iteration = replace(iteration, selection=selection)
        else:
            iteration = replace(iteration, losses=read_losses(store, manifest))
        found[index] = iteration
    return tuple(found[index] for index in sorted(found))


def _prm(store: Store, manifests: Mapping[str, Manifest]) -> PrmView | None:
    label, train, verify = (manifests.get(f"prm/{step}") for step in ("label", "train", "verify"))
    view = PrmView()
    if label:
        view = replace(
            view,
            examples=label.results["selected"],
            labelled_steps=label.results["steps"],
            mean_label=label.results["mean_label"],
        )
    if train:
        held_out = train.results.get("held_out")
        view = replace(
            view,
            losses=read_losses(store, train),
            held_out=HeldOut(**held_out) if held_out else None,
            identity=train.id,
        )
    if verify:
        view = replace(view, verification=evaluation_of(verify.results))
    return None if view == PrmView() else view


def read_task(store: Store, identity: str) -> Task | None:
    """What a step was asked to do; None when its record is gone."""
    try:
        return TASK.validate_json(store.get(keys.task(identity)))
    except NotFound:
        return None


def read_losses(store: Store, manifest: Manifest) -> tuple[float, ...]:
    """The loss of each optimizer step of a train step."""
    with TemporaryDirectory(prefix="mstar-report-") as scratch:
        path = open_part(store, manifest.part("losses.json"), Path(scratch))
        return tuple(map(float, json.loads(path.read_bytes())))
