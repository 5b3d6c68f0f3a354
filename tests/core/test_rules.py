"""The rules are found by listing their package, and each keeps its promises to the selection."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.registry import modules_of
from mstar.core.rules import Rule, find_rule, rules
from mstar.core.rules.threshold import ALPHAS, AlphaTable, choose_alpha
from tests.core.making import groups, scored


def test_every_rule_of_the_paper_and_both_controls_are_there():
    assert set(rules()) >= {"all", "random", "threshold", "top_k", "longest", "shortest"}


def test_an_unknown_rule_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'top_k'"):
        find_rule("topk")


def test_a_module_without_its_definition_is_refused():
    with pytest.raises(TypeError, match=r"mstar\.methods\.continuous must define RULE, a Rule"):
        modules_of("mstar.methods", "RULE", Rule)


@pytest.mark.parametrize("name", sorted(rules()))
def test_a_rule_says_what_it_is_and_names_only_parameters_that_exist(name):
    rule = rules()[name]
    assert set(rule.needs) <= {"k", "alpha"}
    assert set(rule.tuned) <= set(rule.needs)
    told = rule.says.format(k=2, alpha=0.5)
    assert ("2" in told) == ("k" in rule.needs)
    assert ("0.5" in told) == ("alpha" in rule.needs)


def test_alphas_go_from_nothing_to_nine_tenths():
    assert ALPHAS == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@given(st.lists(groups(max_size=6), max_size=4))
def test_the_table_counts_who_is_above_each_alpha(stream):
    table = AlphaTable()
    for group in stream:
        table.add(group)
    everything = [item for group in stream for item in group]
    for row in table.rows():
        right, wrong = (
            [min(i.step_scores) > row.alpha for i in everything if i.grade.correct is kind]
            for kind in (True, False)
        )
        assert row.right_above == (sum(right) / len(right) if right else None)
        assert row.wrong_above == (sum(wrong) / len(wrong) if wrong else None)
        if right and wrong:
            both = sum(right) / len(right) + 1 - sum(wrong) / len(wrong)
            assert row.balanced_accuracy == pytest.approx(both / 2)
        else:
            assert row.balanced_accuracy is None


def test_the_alpha_that_tells_right_from_wrong_best_is_chosen():
    table = AlphaTable()
    table.add([scored(n, correct=True, scores=(0.55,)) for n in range(3)])
    table.add([scored(n, scores=(0.25,)) for n in range(3)])
    chosen = choose_alpha((row.alpha, row.balanced_accuracy) for row in table.rows())
    assert chosen == 0.3  # 0.3, 0.4 and 0.5 are equal: the lowest


def test_where_nothing_could_be_measured_the_lowest_alpha_is_chosen():
    assert choose_alpha((alpha, None) for alpha in reversed(ALPHAS)) == 0.0
    assert choose_alpha([(0.0, 0.4), (0.1, None), (0.2, 0.5)]) == 0.1
    with pytest.raises(ValueError, match="no alpha"):
        choose_alpha([])


def test_a_response_without_a_usable_score_has_no_place_in_the_table():
    with pytest.raises(ValueError, match="query q, sample 4"):
        AlphaTable().add([scored(4, scores=(math.nan,))])
