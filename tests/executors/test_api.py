"""Each answer of an API server means one thing to the caller; trouble that may pass is asked again for a while."""

import http.server
import json
import threading
from contextlib import contextmanager

import pytest

from mstar.errors import ClusterError, ClusterUnreachable, SpecError
from mstar.executors.k8s.api import AlreadyThere, Gone, connect
from tests.executors.making import api
from tests.fake_cluster import CUT, DROP, LOSE

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "labels": {"run": "r"}}}
POD = {
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "stage"}, {"name": "proxy"}]},
}


def again(body, name):
    return body | {"metadata": body["metadata"] | {"name": name}}


def test_an_object_is_made_found_listed_and_taken_away(cluster):
    ours = api(cluster)
    made = ours.create(JOB)
    assert made["metadata"]["uid"]
    found = ours.get("Job", "a")
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    ours.create(again(JOB, "b"))
    assert [item["metadata"]["name"] for item in ours.list("Job", "run=r").items] == ["a", "b"]
    assert ours.list("Job", "run=other").items == []
    assert ours.delete("Job", "a")
    assert not ours.delete("Job", "a")
    assert ours.get("Job", "a") is None
    assert ours.calls == {"POST jobs": 2, "GET jobs/a": 2, "GET jobs": 2, "DELETE jobs/a": 2}


def test_an_object_of_that_name_is_told_from_other_conflicts(cluster):
    ours = api(cluster)
    ours.create(JOB)
    with pytest.raises(AlreadyThere):
        ours.create(JOB)
    cluster.fail("POST", 409)
    ours.create(again(JOB, "b"))
    assert cluster.calls["POST jobs"] == 4


def test_a_dry_run_makes_nothing_and_says_what_is_wrong(cluster):
    ours = api(cluster)
    ours.create(JOB, dry_run=True)
    assert cluster.find("Job") == []
    cluster.fail("dryRun=All", 422)
    with pytest.raises(SpecError, match="the cluster finds the object invalid: fault 422"):
        ours.create(JOB, dry_run=True)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_trouble_that_may_pass_is_asked_again(cluster, code):
    cluster.fail("POST", code, times=3)
    api(cluster).create(JOB)
    assert cluster.calls["POST jobs"] == 4


@pytest.mark.parametrize("code", [429, 503])
def test_trouble_that_does_not_pass_is_an_unreachable_cluster(cluster, code):
    cluster.fail(".", code, times=10**6)
    with pytest.raises(ClusterUnreachable, match=rf"127.0.0.1.*does not answer \({code} fault"):
        api(cluster, patience=0.1).get("Job", "a")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (400, SpecError, "invalid"),
        (401, ClusterError, "log in again"),
        (403, ClusterError, "the cluster refuses: fault 403"),
        (405, ClusterError, "answered 405 to GET"),
        (410, Gone, "fault 410"),
        (302, ClusterError, "answered 302"),
    ],
)
def test_an_answer_that_stays_is_one_error(cluster, code, kind, words):
    cluster.fail("GET", code)
    with pytest.raises(kind, match=words):
        api(cluster).get("Job", "a")
    assert cluster.calls.total() == 1


def test_an_answer_that_never_came_is_asked_for_again(cluster):
    ours = api(cluster)
    cluster.fail("POST", DROP, times=2)
    ours.create(JOB)
    assert cluster.calls["POST jobs"] == 3


def test_an_answer_that_was_lost_shows_as_an_object_that_is_there(cluster):
    ours = api(cluster)
    cluster.fail("POST", LOSE)
    with pytest.raises(AlreadyThere):
        ours.create(JOB)
    cluster.fail("DELETE", LOSE)
    assert not ours.delete("Job", "a")
    assert cluster.find("Job") == []


def test_a_server_that_comes_back_is_waited_for(cluster):
    ours = api(cluster, patience=120)
    ours.create(JOB)
    cluster.down()
    threading.Timer(0.2, cluster.up).start()
    assert ours.get("Job", "a")


def test_a_server_that_is_gone_is_named(cluster):
    cluster.down()
    with pytest.raises(ClusterUnreachable, match=rf"{cluster.url} does not answer .*refused"):
        api(cluster, patience=0.1).get("Job", "a")


@contextmanager
def something_else(answer, code=200):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(code)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"[1, 2]", b"", b"\xff\xfe"])
def test_what_is_no_api_server_is_said_to_be_none(cluster, answer, monkeypatch):
    with something_else(answer) as url:
        ours = api(cluster)
        monkeypatch.setattr(ours._connection, "host", url)
        with pytest.raises(ClusterError, match="is no Kubernetes API server"):
            ours.get("Job", "a")


@pytest.mark.parametrize("answer", [b"<html>forbidden</html>", b"[1]", b'"no"', b""])
def test_an_error_that_is_no_status_is_shown_as_it_is(cluster, answer, monkeypatch):
    with something_else(answer, 403) as url:
        ours = api(cluster)
        monkeypatch.setattr(ours._connection, "host", url)
        with pytest.raises(ClusterError, match="the cluster refuses"):
            ours.get("Job", "a")


def test_a_watch_tells_each_change_and_ends_in_time(cluster):
    ours = api(cluster)
    cluster.put(JOB)
    version = ours.list("Job").version
    cluster.put(again(JOB, "b"))
    watch = ours.watch("Job", "run=r", version, 600)
    events = [next(watch)]
    cluster.put(again(JOB, "c") | {"metadata": {"name": "c", "labels": {"run": "other"}}})
    cluster.bookmark()
    events.append(next(watch))
    cluster.remove(cluster.find("Job")[0])
    events.append(next(watch))
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK", "DELETED"]
    assert ours.calls["WATCH jobs"] == 1
    del watch  # and with it the connection
    version = events[-1]["object"]["metadata"]["resourceVersion"]
    assert list(ours.watch("Job", "run=r", version, 1)) == []


def test_a_watch_from_a_forgotten_version_says_so(cluster):
    version = api(cluster).list("Job").version
    cluster.expire()
    with pytest.raises(Gone, match="too old"):
        list(api(cluster).watch("Job", "", version, 600))


def test_a_watch_that_breaks_inside_a_line_gives_whole_lines_and_then_an_error(cluster):
    ours = api(cluster)
    version = ours.list("Job").version
    cluster.put(JOB)
    watch = ours.watch("Job", "", version, 600)
    assert next(watch)["object"]["metadata"]["name"] == "a"
    cluster.fail("", CUT)
    cluster.put(again(JOB, "b"))
    with pytest.raises(ClusterUnreachable, match="the watch broke"):
        next(watch)


def test_a_log_is_that_of_the_stage_whatever_else_runs_in_its_pod(cluster):
    cluster.put(POD)
    cluster.logs["p"] = "printed\n"
    ours = api(cluster)
    assert ours.log("p", "stage", limit=100) == "printed\n"
    assert ours.log("p", "stage", limit=3) == "ed\n"
    assert ours.log("nobody", "stage", limit=100) == ""


def test_a_log_on_a_lost_node_is_not_waited_for(cluster):
    cluster.put(POD)
    cluster.fail("/log", 500, times=10**6)
    assert api(cluster, patience=300).log("p", "stage", limit=100) == ""


def test_what_one_may_do_is_asked_of_the_cluster(cluster):
    cluster.denied = {("create", "jobs")}
    ours = api(cluster)
    assert not ours.allowed("create", "jobs", "batch")
    assert ours.allowed("list", "jobs", "batch")
    with pytest.raises(ClusterError, match="cannot create"):
        ours.create(JOB)


def test_a_namespace_is_there_or_not_or_may_not_be_looked_at(cluster):
    assert api(cluster).namespace_exists()
    assert not api(cluster, namespace="nowhere").namespace_exists()
    cluster.fail("GET /api/v1/namespaces/ml", 403)
    assert api(cluster).namespace_exists()


def kubeconfig(**changes):
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "c", "user": "u", "namespace": "ml"}},
        ],
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    return json.dumps({key: value for key, value in body.items() if value is not None})


@pytest.fixture
def config(tmp_path, monkeypatch):
    file = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


@pytest.mark.parametrize(
    ("changes", "context", "namespace"),
    [
        ({}, None, "default"),
        ({}, "two", "ml"),
        ({"current_context": "two"}, None, "ml"),
        ({"current_context": None}, "two", "ml"),
        ({"current_context": "gone"}, "two", "ml"),
    ],
)
def test_a_context_says_which_cluster_and_which_namespace(config, changes, context, namespace):
    config.write_text(kubeconfig(**changes))
    found, implied = connect(context)
    assert (found.host, implied) == ("http://127.0.0.1:1", namespace)


BROKEN = {
    "empty": ("", "file is empty"),
    "no YAML": ("a: [", "cannot be read as a kubeconfig"),
    "a list": ("[1]", "is no kubeconfig"),
    "a word": ("hello", "is no kubeconfig"),
    "bytes": (b"\xff\xfe\x00", "is no kubeconfig"),
    "no context": (kubeconfig(current_context=None), "current-context"),
    "another context": (kubeconfig(current_context="three"), "three"),
    "no clusters": (kubeconfig(clusters=None), "no cluster to talk to"),
    "null for a context": (kubeconfig(contexts=[{"name": "one", "context": None}]), "no cluster"),
    "a certificate that is nowhere": (
        kubeconfig(
            clusters=[
                {
                    "name": "c",
                    "cluster": {"server": "https://127.0.0.1:1", "certificate-authority": "/none"},
                }
            ]
        ),
        "does not exist",
    ),
}


@pytest.mark.parametrize(("content", "words"), BROKEN.values(), ids=BROKEN)
def test_a_kubeconfig_that_is_none_is_one_message(config, content, words):
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ClusterError, match=words) as error:
        connect()
    assert "--local" in str(error.value)


def test_a_kubeconfig_that_is_missing_or_a_folder_is_named(config):
    with pytest.raises(ClusterError, match=f"there is no kubeconfig at {config}"):
        connect()
    config.mkdir()
    with pytest.raises(ClusterError, match="cannot be read as a kubeconfig"):
        connect()
