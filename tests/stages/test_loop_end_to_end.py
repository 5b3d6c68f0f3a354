"""The whole loop at minimal size, with the real sampler, scorer and trainer, in one process."""

import shutil

import pytest

from mstar.config import parse_spec
from mstar.controller.loop import Controller
from mstar.controller.prepare import prepare
from mstar.core.records import Example, Response, Scored
from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder, read_recipe
from mstar.errors import IntegrityError
from mstar.execution import Execution
from mstar.executors.fake import FakeExecutor
from mstar.history import load_history
from mstar.recipe import Done, next_step, planned_steps
from mstar.stages.run import Request, run_request
from mstar.storage import keys
from mstar.storage.folder import FolderStore
from mstar.storage.reading import open_part, read_manifest, resolve
from mstar.storage.tables import read_tables
from mstar.tasks import TASK, task_hash
from tests.controller.test_controller import Silent

pytestmark = pytest.mark.slow
ONE_THREAD = Execution(threads=1, sampling_rows=256)


def spec(folder, data, **changes):
    raw = read_recipe()
    raw["warm_up"] |= {"queries": 16}
    raw["prm"] |= {"queries": 16, "completer_epochs": 1}
    raw["evolve"] |= {"iterations": 2, "interval": 0.25}
    raw["evaluation"] |= {"queries": 6, "samples": 4, "pass_at": [1, 4]}
    raw |= {"data": {"path": str(data)}, "model": str(base_folder()), "store": str(folder)}
    return parse_spec(raw | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with one finished run, and the run."""
    root = tmp_path_factory.mktemp("loop")
    write_dataset(root / "data", sizes={"train": 48, "validation": 6, "test": 8})
    store = FolderStore(root / "store")
    run = prepare(store, spec(root / "store", root / "data"))

    def work(job):
        request = Request(store=job.store, task=job.task, execution=ONE_THREAD, attempt=job.attempt)
        run_request(request, lambda *_: None, scratch=root)

    Controller(store, FakeExecutor(work), run, Silent()).advance()
    return store, run, root


def manifests(store, run):
    return {entry.name: resolve(store, entry.ref) for entry in load_history(store, run.name)}


def table(store, manifest, stem, record, scratch):
    parts = [part for part in manifest.parts if part.name.endswith(f"{stem}.parquet")]
    return list(read_tables([open_part(store, part, scratch) for part in parts], record))


def test_every_planned_step_commits(finished):
    store, run, _ = finished
    assert len(manifests(store, run)) == planned_steps(run.spec)


def test_the_optimizer_lives_through_the_iterations(finished):
    store, run, _ = finished
    found = manifests(store, run)
    first, second = found["iter-01/train"].results, found["iter-02/train"].results
    assert second["global_step"] == first["global_step"] + second["optimizer_steps"]


def test_selection_keeps_right_responses_only_and_at_most_two_a_query(finished):
    store, run, root = finished
    manifest = manifests(store, run)["iter-01/score"]
    scored = table(store, manifest, "scored", Scored, root)
    right = {(s.response.query_id, s.response.sample) for s in scored if s.grade.correct}
    kept = [(e.query_id, e.sample) for e in table(store, manifest, "examples", Example, root)]
    assert set(kept) <= right
    assert max(sum(query == other for other, _ in kept) for query, _ in kept) <= 2
    assert all(bool(s.step_scores) == s.grade.correct for s in scored)


def test_an_example_names_the_policy_and_the_seed_that_wrote_it(finished):
    store, run, root = finished
    found = manifests(store, run)
    policy = found["warm-up/train"].digest
    responses = table(store, found["iter-01/generate"], "responses", Response, root)
    seeds = {(r.query_id, r.sample): r.seed for r in responses}
    for example in table(store, found["iter-01/score"], "examples", Example, root):
        assert example.policy == policy
        assert example.seed == seeds[example.query_id, example.sample]


def test_prm_labels_are_shares_and_end_with_whether_the_answer_is_right(finished):
    store, run, root = finished
    examples = table(store, manifests(store, run)["prm/label"], "examples", Example, root)
    for example in examples:
        assert all(0 <= label <= 1 for label in example.labels)
        assert example.labels[-1] == example.reward
        assert example.step_ends[-1] == len(example.tokens)


def test_evaluation_reports_intervals_and_every_temperature(finished):
    store, run, _ = finished
    results = manifests(store, run)["iter-00/evaluate"].results
    grid = run.spec.evolve.exploration.temperatures
    assert tuple(point["temperature"] for point in results["sampled"]) == grid
    assert results["greedy"]["low"] <= results["greedy"]["accuracy"] <= results["greedy"]["high"]
    for point in results["sampled"]:
        assert point["pass_at"]["1"] <= point["pass_at"]["4"]
        assert 0 <= point["reward_pass_at_2"] <= 1


def test_shards_change_nothing_but_the_files(finished, tmp_path):
    store, run, root = finished
    history = load_history(store, run.name)
    step = next_step(run.spec, run.inputs, [])
    assert step is not None
    assert task_hash(step.task) == history[0].ref.id
    generate = manifests(store, run)["warm-up/generate"]
    whole = table(store, generate, "responses", Response, root)
    other = FolderStore(tmp_path / "store")
    prepare(other, run.spec)
    first = history[0]
    results = resolve(store, first.ref).results
    task = next_step(run.spec, run.inputs, [Done(name=first.name, ref=first.ref, results=results)])
    assert task is not None
    request = Request(
        store=other.url,
        task=task.task,
        execution=ONE_THREAD.model_copy(update={"shards": 3}),
        attempt="1",
    )
    sharded = run_request(request, lambda *_: None, scratch=tmp_path)
    assert len([part for part in sharded.parts if part.name.endswith("responses.parquet")]) == 3
    texts = {(r.query_id, r.sample): (r.text, r.seed) for r in whole}
    split = table(other, sharded, "responses", Response, tmp_path)
    assert {(r.query_id, r.sample): (r.text, r.seed) for r in split} == texts


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_part_is_named_and_not_used(finished, tmp_path, damage):
    store, run, _ = finished
    manifest = manifests(store, run)["warm-up/generate"]
    part = manifest.parts[0]
    copy = FolderStore(tmp_path / "store")
    good = store.get(part.key)
    copy.put(part.key, good[:-5] if damage == "truncated" else b"\0" + good[1:])
    with pytest.raises(IntegrityError, match="responses"):
        open_part(copy, part, tmp_path)


def again(finished, folder, name, **execution):
    """A request for a step that is done, in a copy of the store that has not committed it."""
    store, run, _ = finished
    copy = FolderStore(folder / "copy")
    shutil.copytree(store.root, copy.root)
    entry = next(e for e in load_history(store, run.name) if e.name == name)
    for key in list(copy.list(keys.artifact("step", entry.ref.id))):
        if key.endswith("/manifest.json"):  # those of its shards, too
            copy.delete(key)
    task = TASK.validate_json(store.get(keys.task(entry.ref.id)))
    how = ONE_THREAD.model_copy(update=execution)
    return copy, Request(store=copy.url, task=task, execution=how, attempt="again")


@pytest.mark.parametrize("name", ["warm-up/score", "iter-01/score", "prm/label"])
def test_scoring_in_shards_keeps_the_same_examples(finished, tmp_path, name):
    store, run, root = finished
    copy, request = again(finished, tmp_path, name, shards=3)
    sharded = run_request(request, lambda *_: None, scratch=tmp_path)
    whole = manifests(store, run)[name]
    assert sharded.results.keys() == whole.results.keys()
    for (
        what,
        value,
    ) in whole.results.items():  # other batches, and sums of another order, round otherwise
        assert sharded.results[what] == (value and pytest.approx(value, rel=1e-5, abs=2e-6)), what

    def kept(where, manifest):
        found = table(where, manifest, "examples", Example, root)
        return {(e.query_id, e.sample): (e.text, e.step_ends, e.labels) for e in found}

    assert kept(copy, sharded) == kept(store, whole)


def test_a_step_run_again_commits_the_same_digest(finished, tmp_path):
    store, run, _ = finished
    for name in ("warm-up/score", "iter-01/generate", "iter-02/train"):
        _, request = again(finished, tmp_path / name.replace("/", "-"), name)
        repeated = run_request(request, lambda *_: None, scratch=tmp_path)
        assert repeated.digest == manifests(store, run)[name].digest, name


def test_a_step_that_reads_a_damaged_part_stops_and_commits_nothing(finished, tmp_path):
    store, run, _ = finished
    part = manifests(store, run)["warm-up/generate"].parts[0]
    copy, request = again(finished, tmp_path, "warm-up/score")
    copy.put(part.key, store.get(part.key)[:-5])
    with pytest.raises(IntegrityError, match=part.key):
        run_request(request, lambda *_: None, scratch=tmp_path)
    assert read_manifest(copy, "step", task_hash(request.task)) is None
    assert not list((copy.root / "steps" / task_hash(request.task)).glob("attempt-again*/*"))
