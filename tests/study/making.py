"""Studies for tests: recipes, made-up inputs, and stages that commit results which row and seed decide."""

import hashlib
import json
from typing import Any

import yaml

from mstar.core.metrics import wilson_interval
from mstar.core.records import Finish, Grade, Response, Scored
from mstar.errors import StepFailed
from mstar.executors.fake import FakeExecutor
from mstar.recipe import Inputs
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.folder import FolderStore
from mstar.storage.tables import TableWriter
from mstar.study.board import Board
from mstar.study.grid import cells, spec_of
from mstar.study.runner import Here, plan_cells, run_cells
from mstar.study.spec import load_study
from mstar.tasks import EvaluateTask, GenerateTask, ScoreTask, TrainTask, task_hash, task_inputs
from tests.runs import made_up

TESTED = 40
RECIPE: dict[str, Any] = {
    "data": {"path": "data"},
    "model": "model",
    "prm": None,
    "evolve": {"iterations": 2, "interval": 0.5, "select": {"rule": "all"}, "exploration": None},
    "evaluation": {"samples": 4, "pass_at": [1, 2, 4], "temperatures": [0.5, 1.0]},
}
INPUTS = Inputs(
    data=made_up("dataset", "data"),
    queries={"train": 40, "validation": 8, "test": TESTED},
    model=made_up("model", "model"),
)


def write_recipe(folder, name, **changes):
    """A recipe file; a dict given for a key is merged into the key's own."""
    raw = {"name": name, **RECIPE}
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) and key in raw else value
    path = folder / "recipes" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(raw))
    return f"recipes/{name}.yaml"


def write_study(folder, **changes):
    """A study of two rows and two seeds; keys given replace its own. The file."""
    raw = {
        "name": "st",
        "store": "store",
        "seeds": [0, 1],
        "baseline": "all",
        "rows": [
            write_recipe(folder, "all"),
            write_recipe(
                folder, "some", evolve=RECIPE["evolve"] | {"select": {"rule": "random", "k": 2}}
            ),
        ],
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(raw | changes))
    return file


def share(*parts):
    """A number in [0, 1) that the parts decide."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


class Stages:
    """Commits at once. ``skill(run)`` is the chance that a run's last policy is right; ``breaking`` names runs
    whose training fails. ``asked`` lists the steps that were really made, as (run, step)."""

    def __init__(self, store, folder, skill=lambda run: 0.5, breaking=()):
        self.store, self.folder, self.skill = store, folder, skill
        self.breaking = set(breaking)
        self.asked = []
        self.stop_after = None

    def executor(self):
        return FakeExecutor(self)

    def __call__(self, job):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        if job.run in self.breaking and isinstance(job.task, TrainTask):
            raise StepFailed(f"the training of {job.run} blew up")
        self.asked.append((job.run, job.step))
        identity = task_hash(job.task)
        with ArtifactWriter(self.store, identity, job.attempt) as writer:
            results = self.results(job, writer)
            inputs = [ref.digest for ref in task_inputs(job.task)]
            writer.commit(results=results, inputs=inputs, timings={"all": 2.0})

    def results(self, job, writer):
        task = job.task
        writer.add_bytes("part", task_hash(task).encode())
        if isinstance(task, GenerateTask):
            return {"responses": 4}
        if isinstance(task, ScoreTask):
            return {"queries": 20, "solved": 9, "selected": 9}
        if isinstance(task, TrainTask):
            steps = 4 if "all" in job.run else 2
            return {
                "objective": "policy",
                "optimizer_steps": steps,
                "global_step": steps,
                "examples": 40,
            }
        assert isinstance(task, EvaluateTask)
        return self.evaluation(job, task, writer)

    def evaluation(self, job, task, writer):
        phase, what = job.step.split("/")
        count = TESTED if what == "test" else 8
        skill = self.skill(job.run) if phase == "final" else 0.3
        right = [share(job.run if phase == "final" else phase, q) < skill for q in range(count)]
        path = self.folder / "scratch" / f"{job.run}-{job.index}.parquet"
        with TableWriter(path, Scored) as table:
            for query, correct in enumerate(right):
                for temperature in (0.0, 1.0):
                    table.write([answer(f"{task.slice.split}-{query}", temperature, correct)])
        writer.add_file("scored.parquet", path, rows=2 * count)
        done = int(phase.rpartition("-")[2]) if phase.startswith("iter") else 2
        accuracy = sum(right) / count if what == "test" else min(1.0, skill + 0.1 * done)
        low, high = wilson_interval(round(accuracy * count), count)
        sampled = [
            {
                "temperature": t,
                "pass_at": {"1": 0.4, "2": 0.6, "4": 0.7 + 0.1 * t},
                "reward_pass_at_2": None,
            }
            for t in task.temperatures
        ]
        greedy = {"correct": sum(right), "accuracy": accuracy, "low": low, "high": high}
        return {"queries": count, "samples": 4, "greedy": greedy, "sampled": sampled}


def answer(query, temperature, correct):
    response = Response(
        query_id=query,
        sample=0,
        text="x",
        tokens=(1,),
        finish=Finish.STOP,
        temperature=temperature,
        policy="p",
        seed=0,
    )
    right = correct if temperature == 0 else not correct
    return Scored(response=response, grade=Grade(answer="1", correct=right), step_scores=())


class World:
    """A study on a store of its own, run by fake stages."""

    def __init__(self, folder, stages=None, **changes):
        self.file = write_study(folder, **changes)
        self.study = load_study(self.file)
        self.cells = cells(self.study)
        self.specs = {cell.run: spec_of(self.study, cell) for cell in self.cells}
        self.store = FolderStore(folder / "store")
        self.stages = stages or Stages(self.store, folder)
        self.inputs = dict.fromkeys(self.specs, INPUTS)
        self.told = []

    def run(self, todo=None, parallel=1):
        """Run the cells; those that failed."""
        todo = self.cells if todo is None else todo
        self.board = Board(self.cells, parallel)
        plan_cells(self.board, self.store, todo, self.specs, self.inputs)
        site = Here(self.store, self.board, self.stages.executor)
        return run_cells(
            todo,
            self.specs,
            self.inputs,
            site,
            self.board,
            parallel=parallel,
            told=lambda cell: self.told.append(cell.run),
        )


def read_json(path):
    return json.loads(path.read_text())
