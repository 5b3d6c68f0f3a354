"""Sampler, scorer and trainer work over models with code of their own without knowing of it."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from mstar.core.records import Finish, Response
from mstar.errors import ModelError, SpecError
from mstar.execution import Execution
from mstar.models.family import Group, load_family
from mstar.models.prm import load_reward_model
from mstar.optimization import Lora, Optimization
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
from mstar.stages.backends.draws import pick, uniforms
from mstar.stages.backends.transformers_sampler import TransformersSampler
from mstar.stages.backends.transformers_scorer import TransformersScorer
from mstar.stages.backends.trial import ready_model
from mstar.tasks import Sampling
from tests.legacy.building import build_standin
from tests.stages.backends.rows import make_prompts, make_rows
from tests.tiny import draw_image, encode_text

CPU = torch.device("cpu")
SAMPLING = Sampling(n=2, temperature=1.0, max_new_tokens=12)
OPTIMIZATION = Optimization(learning_rate=3e-3, batch_size=4, freeze=("vision",))


def how(**execution):
    return Execution(device="cpu", remote_code=True, **execution)


def quiet(count):
    return None


def asked(samples=2):
    """Prompts whose images differ in size, so that they have different numbers of tiles, crops or slices."""
    sizes = [(16, 16), (40, 16), (16, 64)]
    return [
        replace(prompt, image=draw_image(n, size))
        for n, (prompt, size) in enumerate(zip(make_prompts(3, samples), sizes, strict=True))
    ]


def sample(folder, prompts, **execution):
    sampler = TransformersSampler(folder, how(**execution))
    return sampler.sample(prompts, SAMPLING, "p", quiet)


def test_a_response_is_drawn_token_by_token_from_the_whole_forward(standin):
    """The reference: no cache, no batch; one full forward a token."""
    prompts = asked(samples=1)
    drawer = TransformersSampler(standin, how())
    model, family = drawer.decoder.model, drawer.family
    for prompt, (response,) in zip(
        prompts, drawer.sample(prompts, Sampling(n=1, max_new_tokens=12), "p", quiet), strict=True
    ):
        (code,) = family.encode([prompt])
        tokens: list[int] = []
        for number in uniforms(list(prompt.seeds), [0], 12)[0]:
            with torch.no_grad():
                logits = model(**family.collate([code], [tokens], pad="left")).logits[:, -1]
            logits[:, list(family.banned)] = -torch.inf
            token = int(pick(logits, number[None], temperature=1.0, top_p=1.0))
            tokens.append(token)
            if token in family.eos:
                break
        ended = tokens[-1] in family.eos
        assert response.tokens == tuple(tokens[:-1] if ended else tokens)
        assert response.finish == (Finish.STOP if ended else Finish.LENGTH)


def test_responses_do_not_depend_on_the_batch(standin):
    prompts = asked()
    assert sample(standin, prompts, sampling_rows=1) == sample(standin, prompts)


def pairs_of(prompts):
    texts = ("one\ntwo\nthree", "bare", "", "x\n\ny\n")
    for prompt in prompts:
        for number, text in enumerate(texts):
            yield (
                prompt,
                Response(
                    query_id=prompt.query_id,
                    sample=number,
                    text=text,
                    tokens=encode_text(text),
                    finish=Finish.STOP,
                    temperature=1.0,
                    policy="p",
                    seed=0,
                ),
            )


def score(folder, pairs):
    prompts, responses = zip(*pairs, strict=True)
    return TransformersScorer(folder, how()).score(prompts, responses, quiet)


@pytest.fixture(scope="module")
def trained(standin, tmp_path_factory):
    """A policy of two steps, and a PRM of two steps made from it."""
    folder = tmp_path_factory.mktemp("trained")
    reports = []
    passes: tuple[tuple[Literal["policy", "prm"], Path], ...] = (
        ("policy", standin),
        ("prm", folder / "policy" / "model"),
    )
    for objective, model in passes:
        rows = make_rows(8, steps=objective == "prm")
        trainer = AccelerateTrainer(objective, model, how(micro_batch=2))
        reports.append(
            trainer.train(
                rows,
                OPTIMIZATION,
                seed=0,
                resume_from=None,
                save_to=folder / objective,
                progress=quiet,
            )
        )
    return folder, reports


def test_training_moves_the_language_model_and_leaves_what_is_frozen(standin, trained):
    folder, reports = trained
    assert [len(report.losses) for report in reports] == [2, 2]
    before = load_family(standin, remote_code=True)
    after = load_family(folder / "policy" / "model", remote_code=True)
    old, new = (family.load(dtype=torch.float32, device=CPU) for family in (before, after))
    groups: tuple[tuple[Group, bool], ...] = (("vision", False), ("language", True))
    for group, moved in groups:
        pairs = zip(before.parameters(old, group), after.parameters(new, group), strict=True)
        assert any(not torch.equal(first, second) for first, second in pairs) is moved


def test_the_loss_is_that_of_the_response_given_image_and_prompt(standin, trained):
    _, (report, _) = trained
    family = load_family(standin, remote_code=True)
    model = family.load(dtype=torch.float32, device=CPU)
    seen = []
    for row in make_rows(8):
        (code,) = family.encode([row.prompt])
        ending = (family.eos[0],) if row.example.finish is Finish.STOP else ()
        answer = (*row.example.tokens, *ending)
        with torch.no_grad():
            logits = model(**family.collate([code], [answer], pad="right")).logits[0]
        said = logits[len(code.tokens) - 1 : -1].log_softmax(dim=-1)
        seen.append((-said[torch.arange(len(answer)), list(answer)].sum().item(), len(answer)))
    # The first step's batch is four of the eight rows, before anything has moved.
    from itertools import combinations

    means = [sum(x for x, _ in four) / sum(n for _, n in four) for four in combinations(seen, 4)]
    assert min(abs(mean - report.losses[0]) for mean in means) < 1e-4


def test_scores_are_the_values_that_the_whole_row_has(trained):
    folder = trained[0] / "prm" / "model"
    pairs = list(pairs_of(asked()))
    judged = score(folder, pairs)
    family = load_family(folder, remote_code=True)
    model = load_reward_model(family, dtype=torch.float32, device=CPU)
    for (prompt, response), found in zip(pairs, judged, strict=True):
        (code,) = family.encode([prompt])
        with torch.no_grad():
            values = model(**family.collate([code], [response.tokens], pad="right"))[0]
        expected = [values[len(code.tokens) + end - 1].item() for end in found.step_ends]
        assert list(found.scores) == pytest.approx(expected, abs=1e-4)


def test_a_model_that_cannot_use_a_cache_says_the_same_without(tmp_path):
    cached = build_standin(tmp_path / "cached", "internvl")
    whole = build_standin(tmp_path / "whole", "internvl", architecture="Phi3ForCausalLM")
    assert load_family(cached, remote_code=True).shares_prefix
    assert not load_family(whole, remote_code=True).shares_prefix
    started = [replace(prompt, prefix=encode_text("so")) for prompt in asked()]
    for prompts in (asked(), started):
        assert sample(whole, prompts) == sample(cached, prompts)
    scored = []
    for folder in (cached, whole):
        family = load_family(folder, remote_code=True)
        torch.manual_seed(0)
        model = load_reward_model(family, dtype=torch.float32, device=CPU, fresh_head=True)
        model.backbone.save_pretrained(folder, state_dict=model.backbone.state_dict())
        from mstar.models.prm import save_head

        save_head(model.head.state_dict(), folder)
        scored.append(score(folder, list(pairs_of(asked()))))
    for first, second in zip(*scored, strict=True):
        assert first.step_ends == second.step_ends
        assert first.scores == pytest.approx(second.scores, abs=1e-4)


def test_no_backend_runs_code_that_was_not_allowed(standin):
    execution = Execution(device="cpu")
    for opening in (
        lambda: TransformersSampler(standin, execution),
        lambda: TransformersScorer(standin, execution),
        lambda: AccelerateTrainer("policy", standin, execution),
    ):
        with pytest.raises(ModelError, match=r"execution\.remote_code: true"):
            opening()


def test_such_a_model_is_not_measured_for_a_plan(standin, tmp_path):
    with pytest.raises(ModelError, match="plan without --calibrate"):
        ready_model(standin, tmp_path, how())


def test_vllm_is_not_asked_for_such_a_model(standin, monkeypatch):
    from mstar.stages.backends import vllm_sampler

    monkeypatch.setattr(vllm_sampler, "import_vllm", lambda: None)
    monkeypatch.setattr(vllm_sampler, "choose_platform", lambda execution: "cpu")
    with pytest.raises(SpecError, match=r"Set execution\.engine to transformers"):
        vllm_sampler.VllmSampler(standin, how(engine="vllm"))


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint. the use_reentrant:UserWarning")
def test_activations_are_computed_again_where_that_is_asked_and_the_losses_stay(
    standin, tmp_path, monkeypatch, lora
):
    again, layers = torch.utils.checkpoint.checkpoint, []

    def counted(*args, **kwargs):
        layers.append(args[0])
        return again(*args, **kwargs)

    def losses(**execution):
        trainer = AccelerateTrainer("policy", standin, how(micro_batch=2, **execution))
        optimization = OPTIMIZATION.model_copy(update={"lora": lora})
        folder = tmp_path / str(len(execution))
        return trainer.train(
            make_rows(8), optimization, seed=0, resume_from=None, save_to=folder, progress=quiet
        ).losses

    # Remote code asks torch for it, or is handed what transformers has of it.
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", counted)
    monkeypatch.setattr("transformers.modeling_utils.checkpoint", counted)
    expected = losses()
    assert not layers
    assert losses(gradient_checkpointing=True) == pytest.approx(expected, rel=1e-6)
    assert layers
