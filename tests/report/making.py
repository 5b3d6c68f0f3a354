"""A store with a whole run in it, made without any model: the recipe asks, and each step is answered by a formula."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mstar.config import RunSpec, parse_spec
from mstar.core.metrics import wilson_interval
from mstar.core.records import Example, Finish, Grade, Response, Scored
from mstar.history import Entry, Run, append_entry, done_step, run_bytes
from mstar.recipe import Inputs, Step, follow, recipe
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter, commit_dataset, commit_model
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.storage.tables import TableWriter
from mstar.tasks import (
    BenchmarkTask,
    EvaluateTask,
    GenerateTask,
    Label,
    ScoreTask,
    Select,
    TrainTask,
    task_hash,
)

NASTY = '</script><img src=x onerror="alert(1)"> & \u2028 <b>five</b>?'
NOW = 1_760_000_000.0
SIZES = {"train": 12, "validation": 6, "test": 8}
SECONDS = 2.0
VERSION = "9.9<script>alert(1)</script>"


def make_spec(name: str = "mstar", **changes: Any) -> RunSpec:
    raw: dict[str, Any] = {
        "name": name,
        "data": {"path": "data"},
        "model": "base",
        "evolve": {
            "iterations": 2,
            "interval": 0.5,
            "rollout": {"samples": 4},
            "exploration": {"every": 2, "lowest": 0.5, "highest": 1.0, "step": 0.5},
        },
        "evaluation": {"samples": 4, "pass_at": [1, 2, 4], "queries": 6},
    }
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) and key in raw else value
    return parse_spec(raw)


def plain_spec(name: str = "continuous") -> RunSpec:
    """All right responses, no PRM asked."""
    return make_spec(
        name,
        evolve={
            "iterations": 2,
            "interval": 0.5,
            "rollout": {"samples": 4},
            "select": {"rule": "all"},
            "exploration": None,
        },
    )


def make_store(folder: Path) -> Store:
    return FolderStore(folder / "store")


def make_inputs(
    store: Store, folder: Path, *, image: bytes | None = None, model: Path | None = None
) -> Inputs:
    """Questions with pictures, one of which would break a careless page."""
    files = {}
    for split, size in SIZES.items():
        rows = [
            {
                "id": f"{split}-{index}",
                "image": {"bytes": image or picture(index), "path": None},
                "question": NASTY if index == 0 else f"What is {index} + {index}?",
                "answer": str(2 * index),
                "options": [] if index % 2 else [str(2 * index), "x"],
            }
            for index in range(size)
        ]
        path = folder / f"{split}.parquet"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
        files[path.name] = path
    config = folder / "config.json"
    config.write_text("{}")
    data = commit_dataset(store, files)
    base = commit_model(store, model or {"config.json": config})
    return Inputs(data=Ref.of(data), queries=SIZES, model=Ref.of(base), benchmarks=Ref.of(data))


def picture(index: int, size: tuple[int, int] = (12, 9), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (index * 20 % 255, 80, 120)).save(buffer, form)
    return buffer.getvalue()


def make_run(
    store: Store,
    folder: Path,
    spec: RunSpec,
    *,
    until: int | None = None,
    image: bytes | None = None,
    model: Path | None = None,
) -> Run:
    """Commit the steps of ``spec``'s recipe, the first ``until`` of them, and the run's history.

    ``model`` is a folder that the base and every checkpoint hold.
    """
    inputs = make_inputs(store, folder / "inputs", image=image, model=model)
    run = Run(spec=spec, inputs=inputs)
    store.create(keys.spec(run.name), run_bytes(run))
    program = recipe(spec, inputs)
    step = next(program, None)
    index = 0
    while step is not None and index != until:
        earlier = read_manifest(store, "step", task_hash(step.task))
        manifest = earlier or commit_step(store, folder, step, model)
        entry = Entry(
            index=index,
            name=step.name,
            ref=Ref.of(manifest),
            adopted=earlier is not None,
            seconds=0.01 if earlier else SECONDS,
            finished_at=NOW + index * SECONDS,
        )
        append_entry(store, run.name, entry)
        step = follow(program, step, done_step(step, manifest))
        index += 1
    return run


def commit_step(store: Store, folder: Path, step: Step, model: Path | None = None) -> Manifest:
    task = step.task
    identity = task_hash(task)
    store.create(keys.task(identity), json.dumps(task.model_dump(mode="json")).encode())
    scratch = folder / "scratch" / step.name
    with ArtifactWriter(store, identity, "1") as writer:
        if isinstance(task, GenerateTask):
            results: dict[str, Any] = {"responses": 24, "tokens": 480, "stopped": 24}
        elif isinstance(task, ScoreTask):
            results = _score(task, writer, scratch)
        elif isinstance(task, TrainTask):
            results = _train(task, writer)
            if model:
                writer.add_folder("model/", model)
        elif isinstance(task, BenchmarkTask):
            results = {"scores": [benchmark_score(name) for name in task.benchmarks]}
        else:
            results = _evaluate(task, step, writer, scratch)
        timings = {"load": 0.25, "sample": 1.0, "grade": 0.25}
        usage = {"tokens_per_second": 90.0} if isinstance(task, TrainTask) else {}
        return writer.commit(
            results=results, timings=timings, usage=usage, versions={"mstar": VERSION}
        ).manifest


def benchmark_score(name: str) -> dict[str, Any]:
    """What ``Scores.as_json`` gives."""
    half = {"accuracy": 0.5, "correct": 20, "total": 40}
    return {
        "benchmark": name,
        "title": f"The <{name}>",
        **half,
        "averages": {},
        "responses": 40,
        "unread": 3,
        "by_judge": 0,
        "by_fallback": 0,
        "sections": {"task": {"geometry": {"accuracy": 0.25, "correct": 5, "total": 20}}},
    }


def _score(task: ScoreTask, writer: ArtifactWriter, scratch: Path) -> dict[str, Any]:
    if isinstance(task.action, Label):
        return {"selected": 10, "held_out": 2, "steps": 33, "mean_label": 0.4}
    if not isinstance(task.action, Select):
        return {"selected": 12, "right": 6, "wrong": 6, "offered": 20}
    scored = [
        item
        for query in range(SIZES["train"] // 2)
        for item in answers(f"train-{query}", 4, 1.0, scores=task.prm is not None)
    ]
    _add(writer, scratch / "scored.parquet", "00000/scored.parquet", scored)
    right = [item for item in scored if item.grade.correct]
    examples = [
        Example(
            query_id=item.response.query_id,
            sample=item.response.sample,
            text=item.response.text,
            tokens=item.response.tokens,
            finish=item.response.finish,
            policy="p",
            seed=0,
        )
        for item in right
        if item.response.sample == 0
    ]
    _add(writer, scratch / "examples.parquet", "examples.parquet", examples)
    asked = task.prm is not None
    return {
        "queries": SIZES["train"] // 2,
        "solved": 6,
        "responses": len(scored),
        "correct": len(right),
        "answered": len(scored),
        "selected": len(examples),
        "selected_queries": len(examples),
        "steps_selected": 2.0,
        "steps_other": 2.0,
        "reward_selected": 0.25 if asked else None,
        "reward_other": 0.25 if asked else None,
    }


def _train(task: TrainTask, writer: ArtifactWriter) -> dict[str, Any]:
    losses = [1.0 / (step + 1) for step in range(5)]
    writer.add_bytes("losses.json", json.dumps(losses).encode())
    results: dict[str, Any] = {"objective": task.objective, "tokens": 100, "optimizer_steps": 5}
    results["global_step"] = 10 if task.optimizer else 5
    if task.objective == "prm":
        results["held_out"] = {"steps": 7, "mse": 0.05, "mse_of_mean": 0.1, "auc": None}
    return results


def _evaluate(
    task: EvaluateTask, step: Step, writer: ArtifactWriter, scratch: Path
) -> dict[str, Any]:
    count = task.slice.count or SIZES[task.slice.split]
    scored = [
        item
        for temperature in ((0.0,) if task.greedy else ()) + task.temperatures
        for query in range(count)
        for item in answers(
            f"{task.slice.split}-{query}",
            task.samples if temperature else 1,
            temperature,
            scores=task.prm is not None and temperature > 0,
        )
    ]
    _add(writer, scratch / "scored.parquet", "scored.parquet", scored)
    correct = {"base": 2, "warm-up": 4, "final": 6}.get(step.name.split("/")[0], 3)
    low, high = wilson_interval(correct, count)
    greedy: dict[str, Any] = {
        "correct": correct,
        "accuracy": correct / count,
        "low": low,
        "high": high,
    }
    greedy |= {"tokens": 10, "answered": count, "by_kind": {}}
    sampled = [
        {
            "temperature": temperature,
            "accuracy": 0.25,
            "pass_at": {str(k): k / task.samples for k in task.pass_at},
            "pass_minus_greedy": 1 - correct / count if task.greedy else None,
            "reward_pass_at_2": temperature / 2 if task.prm else None,
            "tokens": 100,
            "answered": 4,
        }
        for temperature in task.temperatures
    ]
    results: dict[str, Any] = {
        "queries": count,
        "samples": task.samples,
        "greedy": greedy if task.greedy else None,
        "sampled": sampled,
    }
    if task.verify:
        methods = ("best_of_n", "weighted_vote", "majority_vote")
        results["verification"] = {str(n): dict.fromkeys(methods, n / 8) for n in (1, 2, 4)}
    return results


def answers(query: str, count: int, temperature: float, *, scores: bool) -> list[Scored]:
    """Every second sample is right, and equal to every other right one; so are the wrong ones."""
    found = []
    for sample in range(count):
        right = sample % 2 == 0
        response = Response(
            query_id=query,
            sample=sample,
            text=f"sample {sample % 2} <i>of</i> {query}\n\\boxed{{{sample % 2}}}",
            tokens=(1, 2, 3),
            finish=Finish.STOP,
            temperature=temperature,
            policy="p",
            seed=sample,
        )
        found.append(
            Scored(
                response=response,
                grade=Grade(answer="0" if right else None, correct=right),
                step_scores=(0.9, 0.25) if scores and right else (),
            )
        )
    return found


def _add(writer: ArtifactWriter, path: Path, name: str, records: list[Any]) -> None:
    with TableWriter(path, type(records[0])) as table:
        table.write(records)
    writer.add_file(name, path, rows=len(records))
