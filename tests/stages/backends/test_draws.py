"""A draw depends on its seed and position alone, and follows the model's distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mstar.stages.backends.draws import pick, uniforms

seeds = st.integers(0, 2**63 - 1)

RECORDED = [
    [0.6524484753608704, 0.7012121081352234],
    [0.3681895136833191, 0.9435641765594482],
    [0.6572466492652893, 0.459286630153656],
]


@given(st.lists(seeds, min_size=1, max_size=20), st.integers(0, 500), st.integers(1, 20))
def test_a_number_is_a_function_of_its_seed_and_position(batch, offset, count):
    together = uniforms(batch, [offset] * len(batch), count)
    assert together.shape == (len(batch), count)
    for row, seed in zip(together, batch, strict=True):
        longer = uniforms([seed], [0], offset + count)[0]
        assert torch.equal(row, longer[offset:])
    assert (together >= 0).all()
    assert (together < 1).all()


def test_the_numbers_never_change_between_versions():
    assert uniforms([0, 1, 2**63 - 1], [0, 0, 7], 2).tolist() == RECORDED


def test_numbers_of_neighbouring_seeds_and_positions_are_uniform_and_unrelated():
    numbers = uniforms(range(400), [0] * 400, 500).double().numpy()
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    assert abs(counts - 2000).max() < 5 * 2000**0.5
    for near in (
        np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel()),
        np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel()),
    ):
        assert abs(near[0, 1]) < 0.01


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.6])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature):
    logits = torch.tensor([1.0, 0.0, -torch.inf, 2.0, -1.0])
    count = 40_000
    drawn = pick(
        logits.expand(count, -1),
        uniforms(range(count), [0] * count, 1)[:, 0],
        temperature=temperature,
        top_p=1.0,
    )
    found = torch.bincount(drawn, minlength=5) / count
    torch.testing.assert_close(found, (logits / temperature).softmax(-1), atol=0.01, rtol=0)
    assert found[2] == 0


def test_no_number_draws_a_token_of_no_probability():
    logits = torch.tensor([[-torch.inf, 0.3, -torch.inf, 0.1, -torch.inf, -torch.inf]])
    numbers = torch.tensor([0.0, 1e-30, 0.5, 1 - 2**-24])
    drawn = pick(logits.expand(4, -1), numbers, temperature=1.0, top_p=1.0)
    assert set(drawn.tolist()) <= {1, 3}
    assert drawn[0] == 1
    assert drawn[3] == 3


@given(st.integers(2, 200), seeds)
def test_a_banned_token_is_never_drawn_whatever_the_number(vocabulary, seed):
    generator = torch.Generator().manual_seed(seed % 2**32)
    logits = torch.randn(1, vocabulary, generator=generator) * 5
    logits[0, vocabulary // 2] = -torch.inf
    numbers = torch.cat([torch.tensor([0.0, 1 - 2**-24]), uniforms([seed], [0], 60)[0]])
    for top_p in (1.0, 0.7):
        drawn = pick(logits.expand(len(numbers), -1), numbers, temperature=1.0, top_p=top_p)
        assert not (drawn == vocabulary // 2).any()
        assert drawn.max() < vocabulary


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    numbers = torch.linspace(0, 0.999, 500)
    rows = logits.expand(500, -1)
    assert set(pick(rows, numbers, temperature=1.0, top_p=0.5).tolist()) == {1}
    assert set(pick(rows, numbers, temperature=1.0, top_p=0.7).tolist()) == {1, 3}
    assert set(pick(rows, numbers, temperature=1.0, top_p=0.9).tolist()) == {0, 1, 3}
    assert set(pick(rows, numbers, temperature=1.0, top_p=1.0).tolist()) == {0, 1, 2, 3}


def test_temperature_zero_takes_the_most_probable():
    logits = torch.tensor([[0.1, 0.3, 0.2], [2.0, -1.0, 1.9]])
    assert pick(logits, torch.tensor([0.99, 0.99]), temperature=0, top_p=1.0).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_nothing_is_drawn_where_a_logit_is_no_number(temperature, top_p, wrong):
    logits = torch.zeros(2, 5)
    logits[1, 3] = wrong
    numbers = uniforms([0, 1], [0, 0], 1)[:, 0]
    drawn = pick(logits, numbers, temperature=temperature, top_p=top_p)
    assert drawn[0] < 5
    assert drawn[1] == 5
