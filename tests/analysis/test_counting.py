"""What an analysis counts: verifier, favourites, survivors. By hand, and on what Hypothesis makes up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.analysis.preferring import Preferring, ranked
from mstar.analysis.surviving import Surviving
from mstar.analysis.verifying import Verifying, sizes_of
from mstar.core.voting import best_of_n, majority_vote
from tests.analysis.making import group, response
from tests.core.making import groups, scored


def verified(*queries, samples=4):
    verifying = Verifying(samples)
    for query in queries:
        verifying.add(query, ())
    return verifying


def test_sizes_double_up_to_the_samples_and_end_with_them():
    assert sizes_of(64) == (1, 2, 4, 8, 16, 32, 64)
    assert sizes_of(1) == (1,)
    assert sizes_of(12) == (1, 2, 4, 8, 12)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=8, max_size=8))
def test_one_sample_a_question_is_the_mean_accuracy_whoever_chooses(drawn):
    items = [
        scored(n, answer=str(int(ok)), correct=ok, scores=[score])
        for n, (ok, score) in enumerate(drawn)
    ]
    found = verified(items, samples=8).result(0)
    mean = sum(ok for ok, _ in drawn) / 8
    assert [curve[0].value for curve in found.curves.values()] == pytest.approx([mean] * 4)


@given(groups(min_size=8, max_size=8))
def test_all_samples_together_are_what_the_vote_over_all_of_them_says(items):
    ordered = sorted(items, key=lambda item: item.response.sample)
    found = verified(items, samples=8).result(0)
    assert found.curves["best_of_n"][-1].value == best_of_n(ordered).grade.correct
    assert found.curves["majority_vote"][-1].value == majority_vote(ordered).grade.correct


@given(groups(min_size=8, max_size=8))
def test_no_verifier_is_better_than_a_perfect_one(items):
    found = verified(items, samples=8).result(0)
    for name in ("best_of_n", "weighted_vote", "majority_vote"):
        assert found.curves[name][-1].value <= found.curves["pass_at_n"][-1].value


def test_small_n_rests_on_every_block_of_the_samples():
    wrong, right = {"answer": "0", "scores": [0.1]}, {"answer": "1", "correct": True}
    items = [scored(0, **wrong), scored(1, **wrong), scored(2, **right), scored(3, **right)]
    assert [e.value for e in verified(items).result(0).curves["best_of_n"]] == [0.5, 0.5, 1.0]


def test_a_response_without_steps_is_chosen_by_no_verifier():
    items = [scored(0, answer=None, scores=()), scored(1, correct=True)]
    found = verified(items, samples=2).result(0)
    assert [e.value for e in found.curves["majority_vote"]] == [0.5, 1.0]


def test_differences_are_paired_by_question():
    better = [scored(0, answer="0"), scored(1, answer="0"), scored(2, correct=True, scores=[0.9])]
    verifying = verified(better, better, samples=3)
    found = verifying.result(0).differences["best_of_n - majority_vote"][-1]
    assert (found.value, found.low, found.high, found.n) == (1.0, 1.0, 1.0, 2)


def test_greedy_is_compared_only_when_every_question_has_it():
    one = group("a", 4)
    verifying = verified(one, group("b", 4))
    verifying.add_greedy(response("a", 0, right=True, steps=1, score=None, temperature=0.0))
    found = verifying.result(0)
    assert found.greedy is not None
    assert found.greedy.n == 1
    assert not any("greedy" in name for name in found.differences)


def test_favourites_are_compared_with_the_other_right_responses_of_their_question():
    preferring = Preferring("\n")
    preferring.add(ranked(group("a", 8)))  # right: 0, 2, 4, 6 with 1, 3, 5, 7 steps, best first
    steps = preferring.result(0)["steps"]
    assert (steps.top.value, steps.other.value, steps.difference.value) == (2.0, 6.0, -4.0)
    assert steps.difference.n == 1


def test_a_question_without_other_right_responses_compares_nothing():
    preferring = Preferring("\n")
    preferring.add(ranked(group("a", 4)))
    assert preferring.compared == 0
    assert preferring.result(0) == {}


def test_equal_rewards_rank_by_sample_and_unscored_ones_not_at_all():
    items = [scored(n, correct=True) for n in (2, 0, 1)]
    items.append(scored(3, correct=True, scores=()))
    assert [item.response.sample for item in ranked(items)] == [0, 1, 2]


def test_what_is_known_of_a_text_is_compared_too():
    preferring = Preferring("\n")
    preferring.add(ranked(group("a", 8)), lambda text: {"short": float("\n" not in text)})
    assert preferring.result(0)["short"].top.value == 0.5


@given(st.lists(groups(max_size=8), min_size=1, max_size=6))
def test_every_question_is_kept_whole_in_part_or_not_at_all(drawn):
    surviving = Surviving()
    for items in drawn:
        surviving.add(items)
    for survival in surviving.result():
        total = survival.all.value + survival.none.value + survival.some.value
        assert total == pytest.approx(1)
        assert survival.all.n == surviving.queries


@given(st.lists(groups(max_size=8), min_size=1, max_size=6))
def test_a_higher_alpha_never_keeps_more(drawn):
    surviving = Surviving()
    for items in drawn:
        surviving.add(items)
    kept = [survival.kept for survival in surviving.result() if survival.alpha is not None]
    assert kept == sorted(kept, reverse=True)


def test_top_k_keeps_some_where_a_threshold_keeps_all_or_none():
    surviving = Surviving()
    for query, score in (("a", 0.95), ("b", 0.15)):
        surviving.add([scored(n, query=query, correct=True, scores=[score]) for n in range(4)])
    found = {survival.alpha: survival for survival in surviving.result() if survival.k is None}
    assert (found[0.5].all.value, found[0.5].none.value, found[0.5].some.value) == (0.5, 0.5, 0.0)
    top = next(survival for survival in surviving.result() if survival.k == 2)
    assert (top.some.value, top.kept) == (1.0, 2.0)


def test_the_alpha_that_tells_right_from_wrong_has_the_best_balanced_accuracy():
    surviving = Surviving()
    right = [scored(n, correct=True, scores=[0.65]) for n in range(3)]
    surviving.add([*right, scored(3, scores=[0.45])])
    accuracy = surviving.balanced_accuracy()
    assert max(accuracy.values()) == accuracy[0.5] == accuracy[0.6] == 1.0
    assert accuracy[0.0] == accuracy[0.9] == 0.5


def test_without_wrong_scored_responses_no_alpha_is_best():
    surviving = Surviving()
    surviving.add([scored(n, correct=True) for n in range(3)])
    assert surviving.balanced_accuracy() == {}
