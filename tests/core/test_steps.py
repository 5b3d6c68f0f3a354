from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar.core.steps import split_steps, step_ends_from_pieces


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("one\ntwo", ("one", "two")),
        ("one\n\n  \n two \n", ("one", "two")),
        ("\none", ("one",)),
        ("one", ("one",)),
        ("", ()),
        (" \n ", ()),
    ],
)
def test_steps_are_what_lies_between_separators_and_is_not_blank(text, steps):
    assert split_steps(text) == steps


def test_a_separator_may_be_any_text():
    assert split_steps("one ки\ntwo ки\n", "ки\n") == ("one", "two")


def test_an_empty_separator_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        split_steps("one", "")


@pytest.mark.parametrize(
    ("pieces", "ends"),
    [
        ((), ()),
        (("a",), (1,)),
        (("a", "\n", "b"), (2, 3)),
        (("a", "\n", "b", "\n"), (2, 4)),
        (("a", "\n", "\n", " ", "b"), (4, 5)),
        (("a\n", "b\n", "c"), (1, 2, 3)),
        (("\n", "a", "\n", "b"), (3, 4)),
        (("a", ".\n", "b", "c"), (2, 4)),
        (("a", "\nb", "c"), (2, 3)),
        (("a", "\nb"), (2,)),
        (("a\nb\nc", "d"), (1, 2)),
        (("\n", " "), (2,)),
        (("a", "", "\n", "", "b", ""), (4, 6)),
    ],
)
def test_a_step_ends_with_the_token_of_its_separator(pieces, ends):
    assert step_ends_from_pieces(pieces) == ends


def test_a_separator_may_be_spread_over_tokens():
    assert step_ends_from_pieces(("a", "\n", "\n", "b\nc"), "\n\n") == (3, 4)


@given(st.lists(st.sampled_from(["a", "b c", "\n", "\n\n", " ", "a\n", "\nb", ""])))
def test_ends_rise_to_the_last_token(pieces):
    ends = step_ends_from_pieces(pieces)
    assert list(ends) == sorted(set(ends))
    assert ends[-1:] == ((len(pieces),) if pieces else ())


@given(st.lists(st.sampled_from(["a", "b c", "\n", "\n\n", " ", "a\n", ""])))
def test_tokens_and_text_have_the_same_steps_when_separators_end_tokens(pieces):
    ends = step_ends_from_pieces(pieces)
    texts = ["".join(pieces[start:end]).strip() for start, end in pairwise((0, *ends))]
    assert tuple(filter(None, texts)) == split_steps("".join(pieces))
