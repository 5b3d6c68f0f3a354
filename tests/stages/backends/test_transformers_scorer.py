"""A step's score is the PRM's value at its last token, read with the prompt and its image."""

import random
from dataclasses import replace

import pytest
import torch

from mstar.core.records import Finish, Response
from mstar.core.steps import step_ends_from_pieces
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.models.prm import load_reward_model, save_head
from mstar.stages.backends import transformers_scorer
from mstar.stages.backends.shared import share
from mstar.stages.backends.transformers_scorer import TransformersScorer
from tests.stages.backends.rows import make_prompts
from tests.tiny import build_tiny_model, draw_image, encode_text

TEXTS = ("one\ntwo\nthree", "a longer first step\nend", "bare", "", "x\n\ny\n")


@pytest.fixture(scope="session", params=["qwen2_vl", "llava"])
def prm(request, tmp_path_factory):
    folder = build_tiny_model(tmp_path_factory.mktemp("prm"), kind=request.param, seed=5)
    cpu = torch.device("cpu")
    model = load_reward_model(load_family(folder), dtype=torch.float32, device=cpu, fresh_head=True)
    save_head(model.head.state_dict(), folder)
    return folder


def make_pairs(count):
    pairs = []
    for index, prompt in enumerate(make_prompts(count)):
        for sample, text in enumerate(TEXTS[index % 3 :]):
            response = Response(
                query_id=prompt.query_id,
                sample=sample,
                text=text,
                tokens=encode_text(text),
                finish=Finish.STOP,
                temperature=1.0,
                policy="p",
                seed=0,
            )
            pairs.append((prompt, response))
    return pairs


def score(folder, pairs, *, retokenize=False, **execution):
    how = Execution(device="cpu", **execution)
    scorer = TransformersScorer(folder, how, retokenize=retokenize)
    prompts, responses = zip(*pairs, strict=True)
    return scorer.score(prompts, responses, lambda count: None)


def test_texts_of_another_tokenizer_are_scored_as_if_they_were_its_own(prm):
    pairs = make_pairs(4)
    foreign = [(p, replace(r, tokens=tuple(range(900, 900 + len(r.text) // 2)))) for p, r in pairs]
    own = score(prm, pairs)
    assert score(prm, pairs, retokenize=True) == own
    assert score(prm, foreign, retokenize=True) == own


def test_scores_are_those_of_one_whole_forward(prm):
    family = load_family(prm)
    model = load_reward_model(family, dtype=torch.float32, device=torch.device("cpu"))
    pairs = make_pairs(4)
    for (prompt, response), judged in zip(pairs, score(prm, pairs), strict=True):
        batch = family.collate(family.encode([prompt]), [response.tokens], pad="right")
        with torch.inference_mode():
            values = model(**batch)[0, len(batch["input_ids"][0]) - len(response.tokens) :]
        assert judged.step_ends == step_ends_from_pieces(list(response.text), "\n")
        expected = [values[end - 1].item() for end in judged.step_ends]
        assert judged.scores == pytest.approx(expected, abs=1e-4)


def test_scores_do_not_depend_on_batch_size_or_order(prm):
    pairs = make_pairs(5)
    expected = score(prm, pairs)
    order = random.Random(0).sample(range(len(pairs)), len(pairs))
    for rows in (1, 3, 100):
        found = score(prm, [pairs[place] for place in order], scoring_rows=rows)
        for place, judged in zip(order, found, strict=True):
            assert judged.step_ends == expected[place].step_ends
            assert judged.scores == pytest.approx(expected[place].scores, abs=1e-4)


def many(queries, samples):
    """Pairs of ``samples`` responses to each query, those of one query in a row."""
    return [
        (prompt, replace(response, query_id=prompt.query_id, sample=sample))
        for prompt in make_prompts(queries)
        for sample, (_, response) in enumerate(make_pairs(9)[:samples])
    ]


def test_a_model_that_cannot_share_reads_each_response_alone_to_the_same_scores(prm):
    pairs = make_pairs(4)
    prompts, responses = zip(*pairs, strict=True)
    scorer = TransformersScorer(prm, Execution(device="cpu", scoring_rows=5))
    shared = scorer.score(prompts, responses, lambda count: None)
    scorer.shares = False
    alone = scorer.score(prompts, responses, lambda count: None)
    for one, other in zip(shared, alone, strict=True):
        assert one.step_ends == other.step_ends
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


@pytest.mark.parametrize("rows", [8, 20, 33, 256])
def test_a_prompt_is_read_once_whatever_the_batches(prm, monkeypatch, rows):
    """Also at the ends of batches and of the windows that are sorted together."""
    read = []

    def sharing(family, prompts, answers):
        batch = share(family, prompts, answers)
        read.append(len(batch["prompts"]["input_ids"]))
        assert len(answers) <= rows
        return batch

    monkeypatch.setattr(transformers_scorer, "share", sharing)
    score(prm, many(queries=14, samples=7), scoring_rows=rows)
    assert sum(read) == 14


def test_the_scorer_sees_the_image(prm):
    (prompt, response), *_ = make_pairs(1)
    other = replace(prompt, query_id="other", image=draw_image(99))
    first, second = score(prm, [(prompt, response), (other, response)])
    assert first.scores != pytest.approx(second.scores, abs=1e-4)


def test_an_empty_response_has_no_steps(prm):
    (judged,) = score(prm, [pair for pair in make_pairs(1) if not pair[1].tokens])
    assert judged.scores == judged.step_ends == ()


def test_progress_counts_responses(prm):
    told: list[int] = []
    prompts, responses = zip(*make_pairs(4), strict=True)
    scorer = TransformersScorer(prm, Execution(device="cpu", scoring_rows=3))
    scorer.score(prompts, responses, told.append)
    assert sum(told) == len(responses)


def test_a_completion_of_a_prefix_is_refused(prm):
    (prompt, response), *_ = make_pairs(1)
    with pytest.raises(ModelError, match="whole responses"):
        score(prm, [(prompt, replace(response, prefix="0/1"))])


def test_a_policy_is_not_a_scorer(tiny_model):
    with pytest.raises(ModelError, match="is not a PRM"):
        TransformersScorer(tiny_model, Execution(device="cpu"))
