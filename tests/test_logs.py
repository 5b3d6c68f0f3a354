"""Logs for people and for machines, and the last word of a pod."""

import io
import json
import logging

import pytest

from mstar import logs
from mstar.executors.k8s.diagnose import diagnose
from mstar.logs import last_word, set_up
from tests.executors.objects import condition, failed_pod, job, told

KUBERNETES_KEEPS = 4096
FAILED = job(condition("Failed", "PodFailurePolicy"))


@pytest.fixture
def stream():
    before = logging.root.handlers[:], logging.root.level
    yield io.StringIO()
    logging.root.handlers[:], logging.root.level = before


@pytest.fixture
def file(tmp_path):
    found = tmp_path / "termination-log"
    found.touch()
    return found


def test_in_a_cluster_each_record_is_one_json_object(stream, monkeypatch):
    monkeypatch.setenv("MSTAR_LOG", "json")
    set_up(stream)
    logging.getLogger("mstar.x").info("two\nlines of %s", "text", extra={"step": "a", "odd": {1}})
    try:
        int("no")
    except ValueError:
        logging.getLogger("mstar.x").exception("broke")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == "two\nlines of text"
    assert (first["level"], first["logger"], first["step"]) == ("info", "mstar.x", "a")
    assert first["time"].endswith("Z")
    assert second["level"] == "error"
    assert second["traceback"].splitlines()[-1].startswith("ValueError: invalid")


def test_in_a_terminal_it_is_a_line(stream, monkeypatch):
    monkeypatch.delenv("MSTAR_LOG", raising=False)
    set_up(stream)
    logging.getLogger("mstar.x").warning("well")
    assert stream.getvalue().endswith(" WARNING well\n")


@pytest.mark.parametrize(
    "text", ["short", 'quotes " and \\ and\nlines', "x" * 10**5, "模型" * 10**4, "\x00" * 9000]
)
def test_a_last_word_is_understood_however_long_it_is(file, text):
    last_word(text, 4, retriable=False, path=file)
    raw = file.read_bytes()
    assert len(raw) <= KUBERNETES_KEEPS
    state = told("", 4, retriable=False)
    state["terminated"]["message"] = raw.decode()
    found = diagnose(FAILED, [failed_pod(0, state)])
    assert found.exit_code == 4
    said = json.loads(raw)["message"]
    assert said == text or (said.endswith("…") and text.startswith(said[:-1]) and len(said) > 100)


def test_what_cannot_be_encoded_is_no_reason_to_say_nothing(file):
    last_word("half a pair \ud800", 4, retriable=False, path=file)
    assert json.loads(file.read_bytes())["exit_code"] == 4


def test_where_there_is_no_place_for_it_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LAST_WORD", tmp_path / "none")
    last_word("text", 1, retriable=True)
    assert list(tmp_path.iterdir()) == []
    last_word("text", 1, retriable=True, path=tmp_path)  # a folder: it is logged
