"""Unlabeled queries and a threshold that validation chooses, through the real stages at minimal size."""

import pytest

from mstar.config import parse_spec
from mstar.controller.loop import Controller
from mstar.controller.prepare import prepare
from mstar.core.records import Example, Scored
from mstar.demo.dataset import SplitName, write_dataset
from mstar.demo.specs import base_folder, read_recipe
from mstar.errors import DataError
from mstar.execution import Execution
from mstar.executors.fake import FakeExecutor
from mstar.history import load_history, load_run
from mstar.recipe import planned_steps
from mstar.stages.run import Request, run_request
from mstar.storage import keys
from mstar.storage.folder import FolderStore
from mstar.storage.reading import open_part, resolve
from mstar.storage.tables import read_tables
from mstar.tasks import TASK, ScoreTask, Select
from tests.controller.test_controller import Silent

pytestmark = pytest.mark.slow
ONE_THREAD = Execution(threads=1, sampling_rows=256)
SIZES: dict[SplitName, int] = {"train": 32, "validation": 6, "test": 8, "unlabeled": 12}


def spec(folder, data, **unlabeled):
    raw = read_recipe()
    raw["warm_up"] |= {"queries": 16}
    raw["prm"] |= {"queries": 16, "completer_epochs": 0, "completions": 2}
    raw["evolve"] |= {
        "iterations": 2,
        "interval": 0.25,
        "select": {"rule": "threshold"},
        "unlabeled": {"labels": "vote", "after": 0.5} | unlabeled,
        "exploration": None,
    }
    raw["evaluation"] |= {"queries": 6, "samples": 4, "pass_at": [1, 4]}
    raw |= {"data": {"path": str(data)}, "model": str(base_folder()), "store": str(folder)}
    return parse_spec(raw)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with one finished run, and its commits by step."""
    root = tmp_path_factory.mktemp("mixed")
    write_dataset(root / "data", sizes=SIZES)
    store = FolderStore(root / "store")
    run = prepare(store, spec(root / "store", root / "data"))

    def work(job):
        request = Request(store=job.store, task=job.task, execution=ONE_THREAD, attempt=job.attempt)
        run_request(request, lambda *_: None, scratch=root)

    Controller(store, FakeExecutor(work), run, Silent()).advance()
    found = {entry.name: resolve(store, entry.ref) for entry in load_history(store, run.name)}
    return store, run, root, found


def table(store, manifest, stem, record, scratch):
    parts = [part for part in manifest.parts if part.name.endswith(f"{stem}.parquet")]
    return list(read_tables([open_part(store, part, scratch) for part in parts], record))


def test_every_planned_step_commits_and_the_stored_run_knows_its_unlabeled_data(finished):
    store, run, _, found = finished
    assert len(found) == planned_steps(run.spec)
    assert load_run(store, run.name).inputs == run.inputs
    assert run.inputs.queries["unlabeled"] == SIZES["unlabeled"]
    names = {part.name for part in resolve(store, run.inputs.data).parts}
    assert names == {"train.parquet", "validation.parquet", "test.parquet"}


def test_the_threshold_is_the_alpha_that_did_best_on_validation(finished):
    store, _, _, found = finished
    rows = found["prm/verify"].results["alphas"]
    assert [row["alpha"] for row in rows] == [number / 10 for number in range(10)]
    best = max(row["balanced_accuracy"] for row in rows)
    chosen = min(row["alpha"] for row in rows if row["balanced_accuracy"] == best)
    for name in ("iter-01/score", "iter-02/score", "iter-02/score-unlabeled"):
        task = TASK.validate_json(store.get(keys.task(found[name].id)))
        assert isinstance(task, ScoreTask)
        assert isinstance(task.action, Select)
        assert task.action.alpha == chosen


def test_pseudo_labels_come_from_all_responses_and_what_conflicts_is_dropped(finished):
    store, _, root, found = finished
    manifest = found["iter-02/score-unlabeled"]
    scored = table(store, manifest, "scored", Scored, root)
    assert all(item.step_scores for item in scored if item.response.tokens)
    votes = manifest.results["pseudo_labels"]
    assert votes["agreeing"] + votes["conflicting"] <= len(scored)
    assert 0 <= votes["true"] <= votes["labeled"] <= 4
    assert manifest.results["correct"] == votes["agreeing"]
    answers = {(s.response.query_id, s.response.sample): s.grade.answer for s in scored}
    kept: dict[str, set[str]] = {}
    for example in table(store, manifest, "examples", Example, root):
        assert example.query_id.startswith("unlabeled-")
        kept.setdefault(example.query_id, set()).add(answers[example.query_id, example.sample])
    assert all(len(agreed) == 1 for agreed in kept.values())


def test_training_learns_from_both_halves(finished):
    *_, found = finished
    labeled, unlabeled, train = (
        found[f"iter-02/{name}"].results for name in ("score", "score-unlabeled", "train")
    )
    assert train["examples"] == labeled["selected"] + unlabeled["selected"]
    assert train["unlabeled_examples"] == unlabeled["selected"]
    assert "unlabeled_examples" not in found["iter-01/train"].results


def test_a_run_whose_data_has_no_such_split_is_refused_before_anything_is_written(tmp_path):
    write_dataset(tmp_path / "data", sizes={"train": 32, "validation": 6, "test": 8})
    store = FolderStore(tmp_path / "store")
    with pytest.raises(DataError, match=r"expected unlabeled\.parquet"):
        prepare(store, spec(tmp_path / "store", tmp_path / "data"))
    assert not list(store.list(""))
