"""What a judge is asked about, what is remembered of it, and what becomes of one that fails."""

import threading

import pytest

from mstar.analysis.endpoint import Endpoint
from mstar.analysis.judging import GIVE_UP, Judging, Pair, Pairing
from mstar.analysis.preferring import ranked
from mstar.core.records import Query
from mstar.storage.folder import FolderStore
from mstar.storage.memory import MemoryStore
from tests.analysis.making import completion, group, judge, scoring


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def query(number):
    return Query(id=f"q{number}", question=f"What is {number}?", answer="1")


def pairs(count):
    return [Pair(query=query(n), top=f"{n}", other=f"{n}\nand\nmore") for n in range(count)]


def judging(store, url, drawn, *, model="m"):
    return Judging(store, Endpoint(url, model, timeout=60.0, sleep=lambda _: None), drawn)


def quietly(done, total, unit):
    del done, total, unit


def asked(store, url, drawn, **named):
    """Ask all, and give what came of it."""
    found = judging(store, url, drawn, **named)
    found.ask(quietly)
    return found.result(0, None)


def test_favourites_and_others_are_compared_by_question():
    with judge() as (url, _):
        judgement, missing = asked(MemoryStore(), url, pairs(5))
    assert not missing
    assert (judgement.responses, judgement.asked, judgement.judged) == (10, 10, 10)
    assert judgement.contrast.top.value == 10
    assert judgement.contrast.difference.value == 2
    assert judgement.contrast.difference.n == 5


def test_what_was_judged_is_not_asked_again():
    store = MemoryStore()
    with judge() as (url, script):
        asked(store, url, pairs(3))
        again = judging(store, url, pairs(4))
        cost = again.cost()
        assert (cost.requests, cost.cached) == (2, 6)
        assert cost.prompt_tokens > 100
        again.ask(quietly)
        assert again.result(0, None)[0].cached == 6
    assert len(script.seen) == 8


def test_another_model_is_another_judge():
    store = MemoryStore()
    with judge() as (url, script):
        asked(store, url, pairs(2))
        asked(store, url, pairs(2), model="other")
    assert len(script.seen) == 8


def test_a_damaged_verdict_is_asked_for_again():
    store = MemoryStore()
    with judge() as (url, script):
        asked(store, url, pairs(1))
        for key in list(store.list("verdicts")):
            store.put(key, b'{"score": "high"}')
        judgement, missing = asked(store, url, pairs(1))
    assert (judgement.judged, missing, len(script.seen)) == (2, [], 4)


def test_neither_key_nor_address_is_written(tmp_path):
    store = FolderStore(tmp_path)
    with judge() as (url, _):
        found = Judging(store, Endpoint(url, "m", "sk-secret"), pairs(1))
        found.ask(quietly)
    for key in store.list(""):
        text = store.get(key).decode()
        assert "sk-secret" not in text
        assert "127.0.0.1" not in text


def test_an_interrupted_analysis_goes_on_where_it_was():
    store = MemoryStore()

    def tire(done, total, unit):
        if done >= 4:
            raise KeyboardInterrupt

    with judge() as (url, script):
        with pytest.raises(KeyboardInterrupt):
            judging(store, url, pairs(6)).ask(tire)
        assert len(script.seen) == 4
        judgement, missing = asked(store, url, pairs(6))
    assert len(script.seen) == 12
    assert (judgement.cached, judgement.judged, missing) == (4, 12, [])


def test_some_failures_leave_the_rest_and_are_told():
    lock, counted = threading.Lock(), [0]

    def moody(body):
        with lock:
            counted[0] += 1
        about = body["messages"][-1]["content"]
        return completion("no idea") if "What is 2?" in about else scoring(body)

    with judge(moody) as (url, _):
        judgement, (missing,) = asked(MemoryStore(), url, pairs(5))
    assert judgement.contrast.difference.n == 4
    assert missing.what == "2 of 10 judgements of relevance"
    assert "2 times its reply holds no score: 'no idea'" in missing.why


def test_a_judge_that_is_down_for_good_is_given_up():
    with judge(lambda _: (503, {}, b"")) as (url, script):
        judgement, (missing,) = asked(MemoryStore(), url, pairs(40))
    assert judgement.contrast is None
    assert judgement.judged == 0
    assert f"given up after {GIVE_UP} failures in a row" in missing.why
    assert "answers 503" in missing.why
    assert len(script.seen) == 4 * GIVE_UP


def test_a_judge_that_refuses_is_asked_no_more_than_a_handful_of_times():
    with judge(lambda _: (401, {}, b"bad key")) as (url, script):
        _, (missing,) = asked(MemoryStore(), url, pairs(40))
    assert "answers 401" in missing.why
    assert len(script.seen) == 4


def test_a_judge_that_is_not_asked_leaves_what_is_known():
    store = MemoryStore()
    with judge() as (url, script):
        asked(store, url, pairs(2))
        judgement, (missing,) = judging(store, url, pairs(3)).result(0, "it was declined")
    assert judgement.contrast.difference.n == 2
    assert missing.why == "the judge m: it was declined"
    assert len(script.seen) == 4


def test_equal_responses_to_a_question_are_asked_about_once():
    same = [Pair(query=query(1), top="the same", other="the same")]
    with judge() as (url, script):
        judgement, _ = asked(MemoryStore(), url, same)
    assert judgement.contrast.difference.value == 0
    assert len(script.seen) == 1


def drawn(responses, seed=0, queries=10):
    pairing = Pairing(seed=seed)
    for number in range(queries):
        pairing.add(query(number), ranked(group(f"q{number}", 8)))
    return pairing.drawn(responses)


def test_pairs_are_of_favourites_and_others_of_one_question():
    for pair in drawn(100):
        favourites = {item.response.text for item in ranked(group(pair.query.id, 8))[:2]}
        assert pair.top in favourites
        assert pair.other not in favourites


def test_every_question_gives_a_pair_before_one_gives_a_second():
    assert len({pair.query.id for pair in drawn(20)}) == 10
    assert len(drawn(1000)) == 20


def test_the_seed_decides_which_pairs_are_drawn():
    assert drawn(10) == drawn(10)
    assert drawn(10) != drawn(10, seed=1)


def test_a_larger_sample_holds_the_smaller_one():
    assert drawn(30)[:5] == drawn(10)
