"""The judge's endpoint, against a real HTTP server: well, slow, busy, broken, talking nonsense, or not there."""

import threading
from contextlib import closing

import pytest

from mstar.analysis.endpoint import Endpoint, JudgeFailed, JudgeRefused
from mstar.analysis.rubric import HIGHEST, LOWEST, messages, prompt_tokens, read_score
from mstar.core.records import Query
from mstar.errors import SpecError
from tests.analysis.making import Outcome, completion, judge, scoring, slowly
from tests.ports import Port

QUERY = Query(id="q", question="How many?", answer="3", options=("3", "4"))
KEY = "sk-not-for-anyone"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def ask(url, *, timeout=60.0, pauses=None, key=None):
    """The score that an endpoint gives, without waiting between tries."""
    waits = [] if pauses is None else pauses
    endpoint = Endpoint(url, "judge-1", key, timeout=timeout, sleep=waits.append)
    request = endpoint.request(messages(QUERY, "One.\n\\boxed{3}"))
    return read_score(endpoint.reply(request, lambda text: read_score(text) is not None))


def test_a_good_judge_gives_a_score_and_is_asked_once():
    with judge() as (url, script):
        assert ask(url, key=KEY) == 9
    (path, body, headers), *others = script.seen
    assert not others
    assert path == "/v1/chat/completions"
    assert body["model"] == "judge-1"
    assert "How many?\nOptions: 3; 4" in body["messages"][-1]["content"]
    assert headers["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent():
    with judge() as (url, script):
        ask(f"{url}/chat/completions/")
    assert "Authorization" not in script.seen[0][2]
    assert script.seen[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_judge_is_asked_again(status):
    answers = [(status, {}, b"later"), (status, {"Retry-After": "7"}, b"later")]
    with judge(lambda _: answers.pop(0) if answers else completion("Score: 4")) as (url, script):
        pauses: list[float] = []
        assert ask(url, pauses=pauses) == 4
    assert len(script.seen) == 3
    assert pauses == [1.0, 7.0]


def test_a_judge_that_stays_busy_is_given_up_after_a_few_tries():
    with judge(lambda _: (500, {"Retry-After": "9999"}, b"no <b>luck</b>")) as (url, script):
        pauses: list[float] = []
        with pytest.raises(JudgeFailed, match=r"answers 500 .*no <b>luck</b>"):
            ask(url, pauses=pauses)
    assert len(script.seen) == 4
    assert max(pauses) == 30.0


@pytest.mark.parametrize(
    "answer",
    [
        completion("I would rather not say."),
        completion("Score: 11"),
        completion("Score: 0 of everything"),
        (200, {}, b"<html>a portal</html>"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"message": {"content": null}}]}'),
        (200, {}, b"\xff\xfe\x00"),
        (200, {}, b""),
        (200, {}, b"x" * (1 << 20) + b"xx"),
    ],
    ids=lambda answer: str(answer[2][:40]),
)
def test_nonsense_is_asked_again_a_few_times_and_then_given_up(answer):
    with judge(lambda _: answer) as (url, script), pytest.raises(JudgeFailed, match="its reply"):
        ask(url)
    assert len(script.seen) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_judge_that_says_no_is_not_asked_again(status):
    no: Outcome = (status, {}, b'{"error": "no such model"}')
    told = pytest.raises(JudgeRefused, match=f"answers {status} .*no such model")
    with judge(lambda _: no) as (url, script), told:
        ask(url)
    assert len(script.seen) == 1


def test_a_redirect_is_not_followed_since_the_key_is_for_one_address_alone():
    with judge() as (elsewhere, other):
        redirect = (302, {"Location": f"{elsewhere}/chat/completions"}, b"")
        with judge(lambda _: redirect) as (url, _), pytest.raises(JudgeRefused, match="302"):
            ask(url, key=KEY)
        assert not other.seen


def test_a_slow_judge_is_waited_for_but_not_for_ever():
    with judge(slowly(0.2)) as (url, _):
        assert ask(url) == 9
    over = threading.Event()
    with judge(lambda body: over.wait() and scoring(body)) as (url, script):
        with pytest.raises(JudgeFailed, match="too long"):
            ask(url, timeout=1.0)
        over.set()
    assert 1 <= len(script.seen) <= 2


def test_a_judge_that_hangs_up_is_a_failure_with_a_reason():
    with judge(lambda _: None) as (url, _), pytest.raises(JudgeFailed, match="no answer from"):
        ask(url)


def test_a_judge_that_is_not_there_is_a_failure_with_a_reason():
    with closing(Port()) as port, pytest.raises(JudgeFailed, match="refused"):
        ask(f"http://127.0.0.1:{port.number}/v1")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://user:secret@host/v1",
        "http://host/v1?key=secret",
        "http://host:none/v1",
        "http://hôte/v1",
        "",
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(url):
    with pytest.raises(SpecError, match="--judge: expected the address") as caught:
        Endpoint(url, "m")
    assert "secret" not in str(caught.value)


def test_a_key_that_is_none_is_refused_without_being_shown():
    with pytest.raises(SpecError, match="judge's key") as caught:
        Endpoint("http://host/v1", "m", "sk-one\nsk-two")
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 7", 7),
        ("**Score:** 7", 7),
        ("score = 7.5/10", 7.5),
        ('{"score": 3}', 3),
        ("A score of 2 would be harsh.\nScore: 8", 8),
        ("Score (1-10): 8", 8),
        ("I'd score 3 of the steps low.\n8", None),
        ("Score: 100", None),
        ("seven", None),
        ("", None),
    ],
)
def test_the_score_is_the_last_one_that_the_reply_names(reply, score):
    assert read_score(reply) == score


def test_the_rubric_shows_the_question_and_not_the_key_to_it():
    asked = messages(QUERY, "It is \\boxed{3}")
    text = " ".join(message["content"] for message in asked)
    assert "How many?" in text
    assert f"{LOWEST} to {HIGHEST}" in text
    assert prompt_tokens(asked) == pytest.approx(len(text) / 4, abs=2)
