"""The whole analysis on stored runs, as a person calls it."""

import json
import re

import pytest
from mstarctl.main import app, main
from typer.testing import CliRunner

from mstar.analysis.making import noted_steps
from mstar.demo.relevance import generator
from mstar.errors import IntegrityError, MissingDependency, MstarError, NotFound, SpecError
from mstar.executors.fake import FakeExecutor
from mstar.history import load_history
from mstar.storage import keys
from mstar.storage.s3 import S3Store
from tests.analysis.making import analysed, completion, judge, sampling


def found(tmp_path):
    return json.loads((tmp_path / "out/analysis.json").read_text())


def page(tmp_path):
    return (tmp_path / "out/analysis.html").read_text()


def test_an_analysis_is_printed_and_written_as_json_and_as_a_page(call, tmp_path):
    result = call()
    assert result.exit_code == 0, result.output
    assert "As a verifier: Best-of-8" in result.output
    assert "Top-2" in result.output
    body = found(tmp_path)
    assert body["queries"] == 6
    assert body["verification"]["sizes"] == [1, 2, 4, 8]
    assert [source["name"] for source in body["sources"]] == ["samples", "iter-01", "iter-02"]
    steps = body["sources"][0]["contrasts"]["steps"]
    assert steps["difference"]["value"] == steps["top"]["value"] - steps["other"]["value"] < 0
    assert body["verification"]["greedy"]["value"] == pytest.approx(1 / 3)


def test_the_page_needs_nothing_but_itself_and_escapes_what_it_shows(call, tmp_path):
    with judge() as (url, _):
        call("mstar", "--policy", "iter-01", "--judge", url, "--judge-model", "<i>m</i>", "--yes")
    text = page(tmp_path)
    assert "<script" not in text
    assert "Judged by &lt;i&gt;m&lt;/i&gt;" in text
    assert "default-src &#x27;none&#x27;" in text
    assert not re.search(r"(?:src|href)=\"(?!#)", text)
    for part in ("verifier", "length", "relevance", "threshold"):
        assert f'<section id="{part}"' in text
        assert f'href="#{part}"' in text


def test_programs_get_the_same_as_the_file(call, tmp_path):
    result = call("mstar", "-o", "json")
    assert json.loads(result.stdout) == found(tmp_path)


def test_an_analysis_that_is_asked_again_samples_nothing_and_says_the_same(
    call, executor, tmp_path
):
    call()
    before = found(tmp_path)
    call()
    assert len(executor.submitted) == 1
    assert found(tmp_path) | {"adopted": False} == before
    assert found(tmp_path)["adopted"]


def test_another_seed_or_number_of_samples_is_sampled_anew(call, executor):
    call()
    call("mstar", "--seed", 1)
    call("mstar", "--queries", 3)
    assert len(executor.submitted) == 3


def test_gc_keeps_the_samples_and_what_the_judge_said(call, store, monkeypatch):
    monkeypatch.setattr("mstar.storage.sweep.BREATH_SECONDS", 0.0)
    with judge() as (url, _):
        call("mstar", "--judge", url, "--judge-model", "m", "--yes")
    (step,) = noted_steps(store, "mstar")
    verdicts = list(store.list("verdicts"))
    result = CliRunner().invoke(app, ["gc", "--store", store.url, "--older-than", "0s", "--yes"])
    assert result.exit_code == 0
    assert "left alone" not in result.output.replace("is left alone", "")
    assert store.size(keys.manifest("step", step.id)) is not None
    assert list(store.list("verdicts")) == verdicts != []


def test_a_damaged_note_of_an_analysis_stops_gc_with_a_message(call, store):
    call()
    (step,) = noted_steps(store, "mstar")
    store.put(keys.analysis("mstar", step.id), b"{}")
    result = CliRunner().invoke(app, ["gc", "--store", store.url, "--yes"])
    assert isinstance(result.exception, IntegrityError)
    assert "not the note of an analysis" in str(result.exception)


def test_a_judge_rates_pairs_after_its_cost_was_shown(call, tmp_path):
    with judge() as (url, script):
        options = ("--judge", url, "--judge-model", "wise", "--judge-sample", 8)
        result = call("mstar", *options, "--yes")
    assert "judge wise at http://127.0.0.1" in result.stderr
    assert "8 requests (0 known already)" in result.stderr
    assert len(script.seen) == 8
    judgement = found(tmp_path)["judgement"]
    assert judgement["judged"] == 8
    assert judgement["contrast"]["difference"]["value"] > 0
    assert "Judged by wise" in page(tmp_path)


def test_where_nobody_can_confirm_the_cost_nothing_is_asked(call, tmp_path):
    with judge() as (url, script):
        result = call("mstar", "--judge", url, "--judge-model", "m")
    assert result.exit_code == 0
    assert not script.seen
    assert "--yes was not given" in page(tmp_path)


@pytest.mark.parametrize(("word", "asked"), [("y\n", True), ("n\n", False)])
def test_a_person_is_asked_before_the_judge_is(store, executor, tmp_path, monkeypatch, word, asked):
    monkeypatch.setattr("mstarctl.analyse._is_terminal", lambda: True)
    with judge() as (url, script):
        arguments = [
            "mstar",
            "--store",
            store.url,
            "--samples",
            "8",
            "--out",
            str(tmp_path / "out"),
        ]
        options = ["--judge", url, "--judge-model", "m", "--judge-sample", "4"]
        CliRunner().invoke(app, ["analyse", "prm", *arguments, *options], input=word)
    assert bool(script.seen) is asked


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (completion("Hm."), "holds no score: &#x27;Hm.&#x27;|holds no score: 'Hm.'"),
        ((500, {"Retry-After": "0"}, b""), "answers 500"),
        ((429, {"Retry-After": "0"}, b""), "answers 429"),
        ((403, {}, b"no"), "answers 403"),
        (None, "no answer from"),
    ],
)
def test_a_judge_that_fails_leaves_the_rest_of_the_analysis_and_the_page_says_why(
    call, tmp_path, monkeypatch, answer, why
):
    monkeypatch.setattr("mstar.analysis.endpoint.PAUSES", (0.0, 0.0))
    with judge(lambda _: answer) as (url, _):
        result = call("mstar", "--judge", url, "--judge-model", "m", "--yes")
    assert result.exit_code == 0, result.output
    assert found(tmp_path)["judgement"]["judged"] == 0
    assert found(tmp_path)["sources"][0]["contrasts"]["steps"]
    assert re.search(why, page(tmp_path))
    assert "missing:" in result.stdout


def test_the_key_comes_from_the_variable_that_is_named_and_goes_nowhere_else(
    call, tmp_path, monkeypatch, store
):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with judge() as (url, script):
        options = ("--judge", url, "--judge-model", "m", "--yes", "--judge-key-env", "MY_KEY")
        result = call("mstar", *options)
    assert script.seen[0][2]["Authorization"] == "Bearer sk-secret"
    written = [store.get(key) for key in store.list("") if key.endswith(".json")]
    shown = [result.output.encode(), page(tmp_path).encode(), *written]
    assert not any(b"sk-secret" in text for text in shown)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (["--policy", "best"], SpecError, "expected warm-up, final or an iteration"),
        (["--policy", "iter-09"], SpecError, "iter-01 to iter-02"),
        (["--split", "exam"], SpecError, "no split 'exam'; its data set has"),
        (["--judge", "nowhere"], SpecError, "--judge-model"),
        (["--judge", "nowhere", "--judge-model", "m"], SpecError, "expected the address"),
        (
            ["--judge", "http://x/v1", "--judge-model", "m", "--judge-key-env", "NO_SUCH_KEY"],
            SpecError,
            "NO_SUCH_KEY",
        ),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_sampled(
    call, executor, options, kind, words
):
    result = call("mstar", *options)
    assert isinstance(result.exception, kind)
    assert words in str(result.exception)
    assert not executor.submitted


def test_a_run_without_a_prm_is_refused_with_the_reason(call):
    result = call("continuous")
    assert isinstance(result.exception, NotFound)
    assert "has no process reward model to analyse: it trains none" in str(result.exception)


def test_an_unknown_run_is_refused_naming_those_there_are(call):
    assert "runs there: continuous, mstar" in str(call("nobody").exception)


def test_a_store_that_lacks_a_part_is_one_message(call, store):
    steps = {entry.name: entry.ref for entry in load_history(store, "mstar")}
    for key in store.list(f"steps/{steps['iter-01/score'].id}"):
        if key.endswith("scored.parquet"):
            store.delete(key)
    result = call()
    assert isinstance(result.exception, MstarError)
    assert "scored.parquet" in str(result.exception)


def test_a_step_that_fails_is_one_message_and_leaves_its_log(store, monkeypatch):
    def fail(job):
        raise MissingDependency("this stage needs the package torch")

    monkeypatch.setattr("mstar.executors.local.LocalExecutor", lambda: FakeExecutor(fail))
    result = CliRunner().invoke(app, ["analyse", "prm", "mstar", "--store", store.url])
    assert isinstance(result.exception, MissingDependency)
    assert "needs the package torch" in str(result.exception)
    logs = CliRunner().invoke(app, ["logs", "mstar", "analysis/sample", "--store", store.url])
    assert "fake log of mstar-9999-analysis-1" in logs.stdout


def test_an_attempt_that_may_pass_is_made_again(store, tmp_path):
    tries = []
    work = sampling(store, tmp_path)

    def flaky(job):
        tries.append(job.attempt)
        if len(tries) == 1:
            from mstar.errors import WorkerLost

            raise WorkerLost("gone")
        work(job)

    result = analysed(store, "mstar", lambda: FakeExecutor(flaky), samples=4)
    assert tries == ["analysis-1", "analysis-2"]
    assert not result.adopted


def test_the_command_ends_with_the_errors_code_and_no_traceback(store, monkeypatch, capsys):
    arguments = ["mstarctl", "analyse", "prm", "nobody", "--store", store.url]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == NotFound.exit_code
    assert capsys.readouterr().err.startswith("mstarctl: no run 'nobody'")


def test_a_run_in_a_bucket_is_analysed_too(store, s3_environment, s3_client, tmp_path):
    bucket = S3Store("s3://runs/analysis")
    for key in store.list(""):
        bucket.put(key, store.get(key))
    result = analysed(bucket, "mstar", lambda: FakeExecutor(sampling(bucket, tmp_path)), samples=4)
    assert [source.name for source in result.sources] == ["samples", "iter-01", "iter-02"]
    assert noted_steps(bucket, "mstar")


def test_questions_of_another_make_have_no_generator_and_the_page_says_so(store, tmp_path):
    executor = FakeExecutor(sampling(store, tmp_path))
    result = analysed(store, "mstar", lambda: executor, samples=8, generator=generator)
    (missing,) = [m for m in result.missing if "generator" in m.what]
    assert "not, or not all, the teaching task's" in missing.why


def test_a_generator_whose_packages_are_missing_is_named_as_missing(store, tmp_path):
    def absent(sample):
        raise MissingDependency("needs the package sklearn")

    executor = FakeExecutor(sampling(store, tmp_path))
    result = analysed(store, "mstar", lambda: executor, samples=8, generator=absent)
    assert [m.why for m in result.missing if "generator" in m.what] == ["needs the package sklearn"]
