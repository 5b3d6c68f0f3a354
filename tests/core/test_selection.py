import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.draws import Draw
from mstar.core.reward import process_reward
from mstar.core.rules import find_rule, rules
from mstar.core.selection import SelectionRule, by_query, select, select_responses
from tests.core.making import groups, scored

RULES = st.builds(
    SelectionRule,
    rule=st.sampled_from(sorted(rules())),
    k=st.integers(1, 4),
    alpha=st.sampled_from([-1.0, 0.25, 0.5]),
    per_query=st.none() | st.integers(1, 3),
    limit=st.none() | st.integers(1, 6),
    min_steps=st.integers(1, 3),
    deduplicate=st.booleans(),
)
SEEDS = st.integers(0, 3)
STREAMS = st.lists(st.integers(0, 10**6), max_size=6, unique=True).flatmap(
    lambda ids: st.tuples(*(groups(query=f"q{number}", max_size=5) for number in ids))
)


def samples(items):
    return [item.response.sample for item in items]


@given(groups(), RULES, SEEDS)
def test_what_is_kept_is_right_and_obeys_the_rule(group, rule, seed):
    kept = select_responses(group, rule, seed=seed)
    assert all(item in group and item.grade.correct for item in kept)
    assert samples(kept) == sorted(set(samples(kept)))
    if "k" in find_rule(rule.rule).needs:
        assert len(kept) <= rule.k
    elif rule.per_query:
        assert len(kept) <= rule.per_query
    if rule.rule == "threshold":
        assert all(process_reward(item.step_scores) > rule.alpha for item in kept)
    if rule.deduplicate:
        assert len({item.response.text for item in kept}) == len(kept)
    assert all(item.response.text.count("\n") + 1 >= rule.min_steps for item in kept)


@given(groups(), st.integers(1, 5))
def test_top_k_dominates_the_rest_and_ties_go_to_the_lowest_sample(group, k):
    kept = select_responses(group, SelectionRule(rule="top_k", k=k), seed=0)
    right = [item for item in group if item.grade.correct]
    rest = [item for item in right if item not in kept]
    assert len(kept) == min(k, len(right))

    def merit(item):
        return process_reward(item.step_scores), -item.response.sample

    assert all(merit(best) > merit(other) for best in kept for other in rest)


@given(groups(), st.integers(1, 5), st.sampled_from(["longest", "shortest"]))
def test_longest_and_shortest_go_by_steps_then_tokens_then_sample(group, k, name):
    kept = select_responses(group, SelectionRule(rule=name, k=k), seed=0)
    right = [item for item in group if item.grade.correct]
    rest = [item for item in right if item not in kept]
    assert len(kept) == min(k, len(right))
    sign = -1 if name == "longest" else 1

    def place(item):
        steps = item.response.text.count("\n") + 1
        return sign * steps, sign * item.response.token_count, item.response.sample

    assert all(place(best) < place(other) for best in kept for other in rest)


def test_of_equally_many_steps_tokens_decide():
    short, long = (scored(n, correct=True, text="a\nb", tokens=(1,) * (n + 1)) for n in (0, 5))
    for name, expected in (("longest", [long]), ("shortest", [short])):
        rule = SelectionRule(rule=name, k=1)
        assert select_responses([long, short], rule, seed=0) == expected


@given(groups(), RULES, SEEDS, st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_the_order_of_responses(group, rule, seed, shuffler):
    shuffled = list(group)
    shuffler.shuffle(shuffled)
    assert select_responses(shuffled, rule, seed=seed) == select_responses(group, rule, seed=seed)


@given(STREAMS, RULES, SEEDS, st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_the_order_of_queries(stream, rule, seed, shuffler):
    shuffled = list(stream)
    shuffler.shuffle(shuffled)
    one, other = (
        list(select((item for group in order for item in group), rule, seed=seed))
        for order in (stream, shuffled)
    )
    assert {(s.response.query_id, s.response.sample) for s in one} == {
        (s.response.query_id, s.response.sample) for s in other
    }


@given(STREAMS, RULES, SEEDS, st.integers(0, 6))
def test_selection_does_not_depend_on_how_queries_are_sharded(stream, rule, seed, cut):
    everything = [item for group in stream for item in group]
    parts = [[item for group in part for item in group] for part in (stream[:cut], stream[cut:])]
    by_shard = [item for part in parts for item in select(part, rule, seed=seed)]
    joined = list(select(by_shard, rule, seed=seed)) if rule.limit else by_shard
    # Joining repeats the rule on what shards kept: nothing that one shard dropped could have come back.
    assert joined == list(select(everything, rule, seed=seed))


@given(STREAMS, RULES, SEEDS)
def test_a_limit_keeps_a_part_of_the_unlimited_selection_in_its_order(stream, rule, seed):
    everything = [item for group in stream for item in group]
    unlimited = [
        i for group in by_query(everything) for i in select_responses(group, rule, seed=seed)
    ]
    kept = list(select(everything, rule, seed=seed))
    assert len(kept) == min(len(unlimited), rule.limit or len(unlimited))
    remaining = iter(unlimited)
    assert all(item in remaining for item in kept)


def test_every_response_is_as_likely_to_be_drawn():
    group = [scored(sample, correct=True) for sample in range(4)]
    rule = SelectionRule(rule="random", k=1)
    counts = [0] * 4
    for seed in range(2000):
        counts[samples(select_responses(group, rule, seed=seed))[0]] += 1
    assert all(420 < count < 580 for count in counts)


@pytest.mark.parametrize(
    "rule", [SelectionRule(rule="top_k", k=2), SelectionRule(rule="threshold", alpha=0)]
)
@pytest.mark.parametrize("scores", [(), (0.5, math.nan)])
def test_ranking_without_usable_scores_is_refused_and_names_the_response(rule, scores):
    group = [scored(3, correct=True, scores=scores, query="q7")]
    with pytest.raises(ValueError, match="query q7, sample 3"):
        select_responses(group, rule, seed=0)


def test_rules_that_do_not_rank_need_no_scores():
    group = [scored(0, correct=True, scores=())]
    assert select_responses(group, SelectionRule(rule="all"), seed=0) == group
    assert select_responses(group, SelectionRule(rule="random", k=1), seed=0) == group


@pytest.mark.parametrize("rule", [name for name, rule in rules().items() if rule.needs])
def test_a_rule_without_its_parameter_is_refused(rule):
    with pytest.raises(ValueError, match=f"rule {rule} needs"):
        SelectionRule(rule=rule)


@given(st.lists(st.integers(0, 20)), st.integers(0, 8))
def test_a_draw_keeps_the_lowest_priorities_in_the_order_offered(priorities, size):
    draw: Draw[int] = Draw(size)
    for index, priority in enumerate(priorities):
        draw.offer(index, priority)
    best = sorted(range(len(priorities)), key=lambda index: (priorities[index], index))[:size]
    assert draw.lowest(size) == best
    assert draw.kept() == sorted(best)
    assert len(draw) == len(best)


def test_a_limited_selection_holds_no_more_than_its_limit(monkeypatch):
    held = []
    offer = Draw.offer

    def watched(self, item, priority):
        offer(self, item, priority)
        held.append(len(self))

    monkeypatch.setattr(Draw, "offer", watched)
    stream = (scored(0, correct=True, query=f"q{number}") for number in range(500))
    assert (
        len(
            list(
                select(
                    stream, SelectionRule(rule="all", limit=20), seed=random.Random(0).randrange(9)
                )
            )
        )
        == 20
    )
    assert len(held) == 500
    assert max(held) == 20
