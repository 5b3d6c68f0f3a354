"""The stages that sample, with an engine that must be started and stopped: the fake vLLM on the demo's own data."""

from contextlib import nullcontext

import pytest

from mstar.config import parse_spec
from mstar.controller.prepare import prepare
from mstar.core.records import Response, Scored
from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder, read_recipe
from mstar.errors import ModelError, WorkerLost
from mstar.execution import Execution
from mstar.stages.protocols import Judged
from mstar.stages.run import Request, run_request
from mstar.storage.folder import FolderStore
from mstar.storage.reading import open_part
from mstar.storage.tables import read_tables
from mstar.tasks import EvaluateTask, GenerateTask, Prompt, Queries, Sampling, Slice
from tests.fake_vllm import World, installed
from tests.real_vllm import REAL_VLLM

N = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("engines")
    write_dataset(root / "data", sizes={"train": 12, "validation": 4, "test": 4})
    raw = read_recipe() | {
        "data": {"path": str(root / "data")},
        "model": str(base_folder()),
        "store": str(root / "store"),
    }
    return prepare(FolderStore(root / "store"), parse_spec(raw))


def request(run, task, **execution):
    return Request(
        store=run.spec.store, task=task, execution=Execution(engine="vllm", threads=1, **execution)
    )


def generate(run, seed):
    return GenerateTask(
        model=run.inputs.model,
        source=Queries(data=run.inputs.data, slice=Slice(split="train")),
        prompt=Prompt(),
        sampling=Sampling(n=N, max_new_tokens=8),
        seed=seed,
    )


@pytest.mark.parametrize("shards", [1, 2])
def test_generate_starts_one_engine_a_shard_and_stops_it(run, tmp_path, shards):
    world = World()
    with installed(world):
        job = request(run, generate(run, seed=shards), shards=shards, sampling_rows=4)
        manifest = run_request(job, lambda *_: None, scratch=tmp_path)
    assert manifest.results["responses"] == 12 * N
    assert len(world.started) == world.stopped == shards


@pytest.mark.parametrize("vllm", ["fake", pytest.param("real", marks=REAL_VLLM)])
def test_generate_in_shards_says_the_same(run, tmp_path, vllm):
    store = FolderStore(run.spec.store.removeprefix("file://"))
    found = []
    for shards in (1, 3):
        # Another name for the same work: what is committed would not be run again.
        names = {"step_separator": f"{vllm} {shards}"}
        job = request(run, generate(run, seed=7).model_copy(update=names), shards=shards)
        with installed(World()) if vllm == "fake" else nullcontext():
            manifest = run_request(job, lambda *_: None, scratch=tmp_path)
        parts = [open_part(store, part, tmp_path) for part in manifest.parts]
        found.append(list(read_tables(parts, Response)))
    assert found[0] == found[1]


def test_generate_stops_its_engine_when_it_fails(run, tmp_path):
    world = World(breaks=RuntimeError("no such kernel"))
    job = request(run, generate(run, seed=99))
    with installed(world), pytest.raises(WorkerLost, match="no such kernel"):
        run_request(job, lambda *_: None, scratch=tmp_path)
    assert world.stopped == 1


def evaluate(run, **fields):
    return EvaluateTask(
        data=run.inputs.data,
        slice=Slice(split="validation"),
        model=run.inputs.model,
        prompt=Prompt(),
        temperatures=(0.5, 1.0),
        samples=N,
        pass_at=(1, N),
        seed=0,
        **{"max_new_tokens": 8} | fields,
    )


def test_evaluate_uses_one_engine_for_all_temperatures_and_prepares_each_image_once(run, tmp_path):
    world = World()
    with installed(world):
        manifest = run_request(request(run, evaluate(run)), lambda *_: None, scratch=tmp_path)
    assert manifest.results["queries"] == 4
    assert [point["temperature"] for point in manifest.results["sampled"]] == [0.5, 1.0]
    assert len(world.started) == world.stopped == 1
    assert world.prepared == 4
    assert len(world.requests) == 4 * (1 + N + N)


def test_evaluate_stops_its_engine_before_it_loads_the_prm(run, tmp_path, monkeypatch):
    world = World()
    stopped: list[int] = []

    class Scorer:
        def score(self, prompts, responses, progress):
            return [Judged(step_ends=(len(r.tokens),), scores=(r.seed % 7 / 7,)) for r in responses]

    def load(*_, **__):
        stopped.append(world.stopped)
        return Scorer()

    monkeypatch.setattr("mstar.stages.evaluate.open_scorer", load)
    task = evaluate(run, prm=run.inputs.model)
    with installed(world):
        manifest = run_request(request(run, task), lambda *_: None, scratch=tmp_path)
    assert stopped == [1] == [len(world.started)]
    (part,) = manifest.parts
    store = FolderStore(run.spec.store.removeprefix("file://"))
    scored = list(read_tables([open_part(store, part, tmp_path)], Scored))
    temperatures = [item.response.temperature for item in scored]
    assert temperatures == [0] * 4 + [0.5] * 4 * N + [1] * 4 * N
    for item in scored:
        sampled = item.response.temperature > 0 and item.response.tokens
        assert item.step_scores == ((item.response.seed % 7 / 7,) if sampled else ())


def test_evaluate_refuses_what_does_not_fit_before_an_engine_starts(run, tmp_path):
    world = World()
    task = evaluate(run, max_new_tokens=100_000)
    with installed(world), pytest.raises(ModelError, match="a response of up to 100000 make"):
        run_request(request(run, task), lambda *_: None, scratch=tmp_path)
    assert not world.started
