"""Which policy, PRM and queries an analysis is about, or why it cannot be."""

import re

import pytest

from mstar.analysis.asking import Ask, find_policy, sampling_task
from mstar.errors import NotFound
from mstar.history import Run, load_history, load_run
from mstar.tasks import task_hash
from tests.report.making import make_run, make_spec, make_store


@pytest.mark.parametrize(
    ("until", "policy", "words"),
    [
        (4, "warm-up", "has not come so far (4 of 22 steps are done)"),
        (13, "final", "no policy final yet: iter-02/train is not done"),
    ],
)
def test_a_run_that_has_not_come_far_enough_is_refused_with_the_reason(
    tmp_path, until, policy, words
):
    store = make_store(tmp_path)
    run = make_run(store, tmp_path, make_spec(), until=until)
    with pytest.raises(NotFound, match=re.escape(words)):
        sampling_task(store, run, load_history(store, "mstar"), Ask(policy=policy))


def test_policies_are_found_by_name(store):
    run, history = load_run(store, "mstar"), load_history(store, "mstar")
    steps = {entry.name: entry.ref for entry in history}
    for name, step in (("warm-up", "warm-up/train"), ("iter-00", "warm-up/train")):
        assert find_policy(run, history, name) == steps[step]
    assert find_policy(run, history, "iter-01") == steps["iter-01/train"]
    assert find_policy(run, history, "final") == steps["iter-02/train"]


def test_another_model_s_prm_reads_texts_in_tokens_of_its_own(store):
    run, history = load_run(store, "mstar"), load_history(store, "mstar")
    assert not sampling_task(store, run, history, Ask()).retokenize
    taught = Run(spec=run.spec.model_copy(update={"teacher": "teacher"}), inputs=run.inputs)
    assert sampling_task(store, taught, history, Ask()).retokenize


def test_runs_that_share_policy_and_prm_share_the_samples(store):
    run, history = load_run(store, "mstar"), load_history(store, "mstar")
    renamed = run.spec.model_copy(update={"name": "other", "seed": 7})
    other = Run(spec=renamed, inputs=run.inputs)
    one, two = (sampling_task(store, each, history, Ask()) for each in (run, other))
    assert task_hash(one) == task_hash(two)
