"""A study whose cells are runs in a cluster, with pods that make their results up."""

import json

import pytest
import yaml

from mstar.errors import MstarError, StepFailed
from mstar.executors.base import Job
from mstar.executors.k8s.names import INDEX, RUN, STEP
from mstar.history import run_names
from tests.cli.conftest import controlling
from tests.executors.making import asked_of
from tests.fake_kubelet import Ended, last_word
from tests.study.making import RECIPE, Stages


@pytest.fixture
def study(tmp_path, inputs, bucket):
    """Two rows of one seed; the file."""
    for name in ("all", "some"):
        rule = {"rule": "all"} if name == "all" else {"rule": "random", "k": 2}
        raw = RECIPE | {
            "name": name,
            "data": {"path": str(inputs / "data")},
            "model": str(inputs / "model"),
            "warm_up": None,
            "evolve": RECIPE["evolve"] | {"iterations": 1, "select": rule},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(raw))
    file = tmp_path / "study.yaml"
    body = {"name": "st", "store": bucket, "seeds": [0], "rows": ["all.yaml", "some.yaml"]}
    file.write_text(yaml.safe_dump(body | {"baseline": "all"}))
    return file


@pytest.fixture
def stages(tmp_path, store, kubelet):
    """Pods of a study's steps."""
    found = Stages(store, tmp_path, skill=lambda run: 0.8 if "some" in run else 0.4)

    def work(running):
        request = asked_of(store, running)
        meta = running.pod["metadata"]
        job = Job(
            run=meta["labels"][RUN],
            index=int(meta["labels"][INDEX]),
            step=meta["annotations"][STEP],
            number=1,
            store=store.url,
            task=request.task,
            execution=request.execution,
            attempt=request.attempt,
        )
        try:
            found(job)
        except MstarError as error:
            text = last_word(str(error), error.exit_code, retriable=error.retriable)
            return Ended(code=error.exit_code, message=text)
        return Ended()

    kubelet.work = controlling(work)
    return found


def test_the_cells_are_runs_of_their_own_and_are_compared(mstarctl, study, stages, store, tmp_path):
    code, _, said = mstarctl("study", "-f", study)
    assert code == 0, said
    assert run_names(store) == ["st-all-s0", "st-some-s0"]
    body = json.loads((tmp_path / "study.json").read_text())
    assert body["finished"] == 2
    assert body["rows"][1]["difference"]["mean"] > 0
    assert "2 of 2 cells done" in said


def test_a_cell_that_fails_there_is_named_and_goes_on_when_asked_again(
    mstarctl, study, stages, tmp_path
):
    stages.breaking = {"st-some-s0"}
    code, _, said = mstarctl("study", "-f", study)
    assert code == StepFailed.exit_code
    assert "failed: some, seed 0 (run st-some-s0), exit code 9" in said
    assert json.loads((tmp_path / "study.json").read_text())["finished"] == 1
    stages.breaking = set()
    code, _, said = mstarctl("study", "-f", study)
    assert code == 0, said
    assert json.loads((tmp_path / "study.json").read_text())["finished"] == 2


def test_no_more_cells_than_asked_for_are_there_at_once(mstarctl, study, stages, kubelet):
    assert mstarctl("study", "-f", study, "--parallel", 1)[0] == 0
    runs = [run for run, _ in stages.asked]
    assert runs == sorted(runs)
