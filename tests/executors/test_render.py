"""What is made in a cluster: the same each time, valid for every supported Kubernetes, and fit for "restricted"."""

import json
import os
import re
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mstar.cluster import Cluster
from mstar.config import NAME
from mstar.errors import leaves
from mstar.execution import Execution
from mstar.executors.base import Job
from mstar.executors.k8s import names
from mstar.executors.k8s.names import Place
from mstar.executors.k8s.render import LASTING, Owner, Scene, controller_job, gang_service, step_job
from mstar.tasks import task_hash
from tests.chart.pod_security import faults
from tests.executors.making import STEPS
from tests.executors.rendered import GOLDEN, OWNER, PLACE, controller, made

FOLDER = Path(__file__).parents[1] / "golden"
VERSIONS = ("1.33", "1.34", "1.35", "1.36", "1.37")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
UPDATE = "MSTAR_UPDATE_GOLDEN"

RUNS = st.text("ab019._-", max_size=61).map(lambda inner: f"a{inner}9") | st.sampled_from("az0")
STORES = st.text("ab01./-_=", max_size=40).map(lambda inner: f"s3://bucket{inner}x")
PLACES = st.builds(Place, run=RUNS, store=STORES)
INDEXES = st.integers(0, 99_999)
ATTEMPTS = st.integers(1, 9_999)
BLOCKS = st.fixed_dictionaries(
    {
        "stages": st.fixed_dictionaries(
            {
                "train": st.fixed_dictionaries(
                    {"nodes": st.integers(1, 64), "execution": st.just({"deepspeed": {}})}
                ),
                "generate": st.fixed_dictionaries(
                    {
                        "resources": st.just({"limits": {"nvidia.com/gpu": "1"}}),
                        "shm": st.just("2Gi"),
                    }
                ),
            }
        )
    },
    optional={
        "queue": st.just({"name": "research", "priority_class": "low"}),
        "secret": st.none(),
        "env_config": st.none(),
        "grace_seconds": st.integers(0, 3600),
        "ttl_seconds": st.integers(0, 10**6),
    },
)


def as_yaml(bodies):
    """As the golden files have it; a step's hash follows from code that is tested elsewhere."""
    text = yaml.safe_dump_all(bodies, sort_keys=False, width=120)
    for step in STEPS.values():
        text = text.replace(task_hash(step.task), "<the task's hash>")
    return text


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_rendered_is_what_was_looked_at(name):
    file = FOLDER / f"{name}.yaml"
    text = as_yaml(GOLDEN[name])
    if os.environ.get(UPDATE):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"look at it, then remake it with {UPDATE}=1"


def test_no_golden_file_is_left_over():
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(GOLDEN)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", GOLDEN)
def test_every_object_is_valid_in_every_supported_kubernetes(name, version):
    for body in GOLDEN[name]:
        kubernetes_validate.validate(body, version, strict=True)


def security_faults(body):
    spec = body["spec"]["template"]["spec"]
    found = set(faults(spec))
    if body["metadata"]["labels"]["app.kubernetes.io/component"] == "controller":
        found.discard("holds a token")  # it talks to the API
    return {each for each in found if not each.endswith("does not say what it needs")}


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - {"generate-patched"}))
def test_every_pod_is_fit_for_the_restricted_profile(name):
    assert [security_faults(body) for body in GOLDEN[name] if body["kind"] == "Job"] == [set()]


def test_a_patched_pod_s_own_container_stays_fit_for_it():
    (body,) = GOLDEN["generate-patched"]
    assert {fault.partition(" ")[0] for fault in security_faults(body)} == {"proxy"}


def scene(place, block=None):
    return Scene(place=place, cluster=Cluster.model_validate(block or {}), owner=OWNER)


def attempt(place, index, number, step="iter-01/generate", shards=3):
    return Job(
        run=place.run, index=index, step=step, number=number, store=place.store,
        task=STEPS[step].task, execution=Execution(shards=shards), attempt=f"1-{number}",
    )  # fmt: skip


@given(PLACES, INDEXES, ATTEMPTS)
def test_every_name_is_a_dns_label_also_with_what_kubernetes_adds_to_it(place, index, number):
    name = names.job_name(place, index, number)
    for each in (name, names.controller_name(place), names.base_name(place)):
        assert LABEL.fullmatch(each)
        assert LABEL.fullmatch(f"{each}-{99_999}")  # a pod's host name in an Indexed Job
    assert NAME.fullmatch(place.run)
    assert len(names.base_name(place)) <= 35
    assert name.startswith(names.base_name(place))


@given(PLACES, INDEXES, ATTEMPTS)
def test_every_label_is_one_that_kubernetes_takes(place, index, number):
    marks = names.step_labels(place, "generate", index, number)
    assert all(VALUE.fullmatch(value) for value in marks.values())
    assert names.selector(place, {names.INDEX: str(index)}).count("=") == 2


@given(st.lists(st.tuples(PLACES, INDEXES, ATTEMPTS), min_size=2, max_size=8, unique=True))
def test_no_two_runs_stores_steps_or_attempts_share_a_name(wanted):
    found = [names.job_name(*each) for each in wanted]
    assert len(set(found)) == len(wanted)
    places = {place for place, _, _ in wanted}
    assert len({names.controller_name(place) for place in places}) == len(places)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"run": "a", "store": "s3://b/c"}, {"run": "a", "store": "s3://b"}),
        ({"run": "a-b", "store": "s3://b"}, {"run": "a.b", "store": "s3://b"}),
        ({"run": "x" * 63, "store": "s3://b"}, {"run": "x" * 62, "store": "s3://b"}),
    ],
)
def test_names_that_look_alike_are_kept_apart(first, second):
    assert names.base_name(Place(**first)) != names.base_name(Place(**second))


@settings(max_examples=40)
@given(PLACES, INDEXES, ATTEMPTS, BLOCKS, st.sampled_from(sorted(STEPS)), st.integers(1, 500))
def test_any_step_renders_the_same_twice_as_plain_json_valid_and_restricted(
    place, index, number, block, step, shards
):
    view, job = scene(place, block), attempt(place, index, number, step, shards)
    body = step_job(view, job)
    assert json.loads(json.dumps(body)) == body == step_job(scene(place, block), job)
    kubernetes_validate.validate(body, "1.37", strict=True)
    assert security_faults(body) == set()
    service = gang_service(view, job, Owner(name="x", uid="y"))
    assert service["metadata"]["name"] == body["metadata"]["name"]
    marks = body["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= marks.items()
    start = controller_job(view)
    assert json.loads(json.dumps(start)) == start
    assert security_faults(start) == set()


def test_no_secret_is_ever_in_an_object(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hush-hush")
    monkeypatch.setenv("HF_TOKEN", "hush-hush")
    bodies = [controller(), *made("iter-01/generate", shards=8), *made("iter-01/train")]
    assert "hush-hush" not in json.dumps(bodies)


def test_exit_codes_that_fail_a_job_at_once_are_those_of_errors_that_stay():
    assert {kind.exit_code for kind in leaves() if not kind.retriable} | {2} == set(LASTING)
    assert sorted(set(LASTING)) == LASTING
    assert 0 not in LASTING


def test_a_gang_ends_whole_and_shards_have_tries_of_their_own():
    gang = GOLDEN["train-gang"][0]["spec"]
    assert gang["backoffLimit"] == 0
    assert gang["completions"] == gang["parallelism"] == 4
    assert "backoffLimitPerIndex" not in gang
    shards = GOLDEN["generate-few-at-once"][0]["spec"]
    assert (shards["completions"], shards["parallelism"]) == (8, 2)
    assert (shards["backoffLimitPerIndex"], shards["maxFailedIndexes"]) == (2, 0)


def test_a_thousand_steps_are_rendered_in_a_moment():
    view = scene(PLACE)
    began = time.process_time()
    for index in range(1000):
        step_job(view, attempt(PLACE, index, 1, shards=8))
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("step", "engine", "image"),
    [
        ("iter-00/evaluate", "transformers", "evaluator"),
        ("iter-00/evaluate", "vllm", "generator"),
        ("iter-01/generate", "vllm", "generator"),
        ("iter-01/train", "vllm", "trainer"),
    ],
)
def test_a_stage_runs_in_an_image_that_holds_its_engine(step, engine, image):
    body = made(step, engine=engine)[0]
    (container,) = body["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example:5000/ml/mstar-{image}:1.2.3"
    own = made(step, {"stages": {STEPS[step].task.stage: {"image": "a/b:1"}}}, engine=engine)[0]
    assert own["spec"]["template"]["spec"]["containers"][0]["image"] == "a/b:1"
