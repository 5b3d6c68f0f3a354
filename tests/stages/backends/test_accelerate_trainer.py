"""Training is the arithmetic that the paper describes, and goes on from a checkpoint as if it had never stopped."""

import copy
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.qwen2_vl import modeling_qwen2_vl

from mstar.core.records import Finish
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.models.prm import load_reward_model
from mstar.optimization import Lora
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
from mstar.stages.backends.encoding import EncodedRows
from mstar.stages.backends.order import plan_epoch
from mstar.stages.protocols import TrainingRow
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import OPTIMIZATION, distance, train, weights


def test_the_loss_falls_and_is_reported_a_step(tiny_model, tmp_path):
    report = train(
        tiny_model,
        make_rows(40),
        tmp_path,
        optimization=OPTIMIZATION.model_copy(update={"epochs": 4}),
    )
    assert len(report.losses) == report.global_step == 20
    assert report.losses[-1] < report.losses[0] / 2
    assert report.examples == 160
    assert report.learning_rate == OPTIMIZATION.learning_rate


def test_the_first_loss_is_the_mean_cross_entropy_of_response_tokens_and_their_end(
    tiny_model, tmp_path
):
    rows = make_rows(6)
    report = train(tiny_model, rows, tmp_path)
    family = load_family(tiny_model)
    model = family.load(dtype=torch.float32, device=torch.device("cpu"))
    total, count = 0.0, 0
    for row in rows:
        answer = row.example.tokens + (family.eos[:1] if row.example.finish is Finish.STOP else ())
        batch = family.collate(family.encode([row.prompt]), [answer], pad="right")
        with torch.inference_mode():
            logits = model(**batch).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        total -= logits[range(len(answer)), answer].sum().item()
        count += len(answer)
    assert report.losses == (pytest.approx(total / count, rel=1e-5),)
    assert report.tokens == count


def test_the_first_prm_loss_is_the_mean_squared_error_of_all_response_tokens(tiny_model, tmp_path):
    rows = make_rows(6, steps=True)
    report = train(tiny_model, rows, tmp_path, objective="prm")
    family = load_family(tiny_model)
    cpu = torch.device("cpu")
    model = load_reward_model(family, dtype=torch.float32, device=cpu, fresh_head=True)
    errors = []
    for row in rows:
        example = row.example
        batch = family.collate(family.encode([row.prompt]), [example.tokens], pad="right")
        with torch.inference_mode():
            values = model(**batch)[0, -len(example.tokens) :].tolist()
        first = example.step_ends[0]
        labels = [example.labels[0]] * first + [example.labels[1]] * (len(values) - first)
        errors += [(value - label) ** 2 for value, label in zip(values, labels, strict=True)]
    assert report.losses == (pytest.approx(sum(errors) / len(errors), rel=1e-5),)


@pytest.mark.parametrize("objective", ["policy", "prm"])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_cutting_batches_into_micro_batches_changes_nothing(tiny_model, tmp_path, objective, size):
    rows = make_rows(20, steps=True)
    whole = train(tiny_model, rows, tmp_path / "whole", objective=objective)
    cut = train(tiny_model, rows, tmp_path / "cut", objective=objective, micro_batch=size)
    assert cut.losses == pytest.approx(whole.losses, rel=1e-5)
    assert distance(tmp_path / "whole", tmp_path / "cut") < 1e-5


@pytest.mark.parametrize("objective", ["policy", "prm"])
@pytest.mark.parametrize("lora", [None, Lora(rank=2, dropout=0.3)])
def test_gradient_checkpointing_computes_layers_twice_and_changes_nothing(
    tiny_model, tmp_path, monkeypatch, objective, lora
):
    rows = make_rows(20, steps=True)
    how = {"objective": objective, "optimization": OPTIMIZATION.model_copy(update={"lora": lora})}
    layer = modeling_qwen2_vl.Qwen2VLDecoderLayer
    forward, passes = layer.forward, [0]

    def counted(*args, **kwargs):
        passes[0] += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(layer, "forward", counted)
    plain = train(tiny_model, rows, tmp_path / "plain", **how)
    once = passes[0]
    again = train(tiny_model, rows, tmp_path / "again", gradient_checkpointing=True, **how)
    assert passes[0] == 3 * once
    assert again.losses == plain.losses
    assert distance(tmp_path / "plain", tmp_path / "again") < 1e-7


@pytest.mark.parametrize("objective", ["policy", "prm"])
def test_a_pass_left_and_taken_up_again_equals_one_that_was_not(tiny_model, tmp_path, objective):
    rows = make_rows(44, steps=True)
    once = train(tiny_model, rows, tmp_path / "once", objective=objective)
    first = train(tiny_model, rows, tmp_path / "0", objective=objective, stop=2)
    second = train(
        tmp_path / "0/model",
        rows,
        tmp_path / "1",
        objective=objective,
        stop=3,
        resume=tmp_path / "0",
    )
    third = train(
        tmp_path / "1/model", rows, tmp_path / "2", objective=objective, resume=tmp_path / "1"
    )
    assert first.losses + second.losses + third.losses == once.losses
    assert third.global_step == once.global_step == 6
    assert distance(tmp_path / "once", tmp_path / "2") == 0


def segments(model, folder, *, forget=None):
    """Three passes over rows of their own, each by a new trainer from the last one's checkpoint."""
    losses = ()
    for number in range(3):
        before = folder / str(number - 1) if number else None
        if before and forget:
            forget(before / "trainer")
        report = train(
            before / "model" if before else model,
            make_rows(16, start=16 * number),
            folder / str(number),
            seed=number,
            resume=before,
        )
        losses += report.losses
    return losses, folder / "2"


def test_segments_joined_by_checkpoints_equal_one_uninterrupted_loop(tiny_model, tmp_path):
    """The reference is plain PyTorch: one model, one optimizer and one schedule over all the segments."""
    losses, last = segments(tiny_model, tmp_path)
    family = load_family(tiny_model)
    model = family.load(dtype=torch.float32, device=torch.device("cpu")).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    expected: list[float] = []
    for number in range(3):
        rows = make_rows(16, start=16 * number)
        answers = [
            row.example.tokens + (family.eos[:1] if row.example.finish is Finish.STOP else ())
            for row in rows
        ]
        prompts = family.encode([row.prompt for row in rows])
        lengths = [len(p.tokens) + len(a) for p, a in zip(prompts, answers, strict=True)]
        for batch in plan_epoch(lengths, 8, seed=number, epoch=0):
            inputs = family.collate(
                [prompts[i] for i in batch], [answers[i] for i in batch], pad="right"
            )
            labels = torch.full_like(inputs["input_ids"], -100)
            for place, i in enumerate(batch):
                start = len(prompts[i].tokens)
                labels[place, start : lengths[i]] = torch.tensor(answers[i])
            logits = model(**inputs).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (len(expected) + 1) / 3)
            optimizer.step()
            optimizer.zero_grad()
            expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-5)
    found = weights(last)
    for name, tensor in model.state_dict().items():
        if name in found:
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)


def test_without_the_optimizer_state_segments_do_not_equal_one_run(tiny_model, tmp_path):
    """The control: the invariant above would notice a lost optimizer."""

    def forget(trainer):
        path = trainer / "optimizer.bin"
        state = torch.load(path)
        torch.save(state | {"state": {}}, path)

    kept, last = segments(tiny_model, tmp_path / "kept")
    lost, other = segments(tiny_model, tmp_path / "lost", forget=forget)
    assert lost[:2] == kept[:2]
    assert lost[3:] != pytest.approx(kept[3:], rel=1e-4)
    assert distance(last, other) > 1e-4


def test_a_fresh_optimizer_warms_up_again_and_an_inherited_one_does_not(tiny_model, tmp_path):
    rows = make_rows(8)
    train(tiny_model, rows, tmp_path / "0")
    fresh = train(tmp_path / "0/model", rows, tmp_path / "1")
    inherited = train(tmp_path / "0/model", rows, tmp_path / "2", resume=tmp_path / "0")
    assert fresh.learning_rate == pytest.approx(OPTIMIZATION.learning_rate * 2 / 3)
    assert inherited.learning_rate == pytest.approx(OPTIMIZATION.learning_rate)
    assert inherited.global_step == 2


def test_the_random_state_goes_on(tiny_model, tmp_path):
    from accelerate import utils

    rows = make_rows(8)
    train(tiny_model, rows, tmp_path / "0")
    utils.set_seed(0)
    expected = torch.rand(3)
    utils.set_seed(123)
    train(tmp_path / "0/model", rows, tmp_path / "1", resume=tmp_path / "0")
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_opens_in_transformers_alone_and_holds_the_weights_once(tiny_model, tmp_path):
    train(tiny_model, make_rows(8), tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    assert processor.chat_template
    assert model.generation_config.eos_token_id == load_family(tiny_model).eos[0]
    assert not [path for path in (tmp_path / "trainer").rglob("*") if "model" in path.name]


def test_a_frozen_group_does_not_change_and_the_rest_does(tiny_model, tmp_path):
    optimization = OPTIMIZATION.model_copy(update={"freeze": ("vision",)})
    train(
        tiny_model, make_rows(16, steps=True), tmp_path, objective="prm", optimization=optimization
    )
    before, after = load_file(tiny_model / "model.safetensors"), weights(tmp_path)
    changed = {name: not torch.equal(before[name], after[name]) for name in before}
    assert not any(moved for name, moved in changed.items() if "visual" in name)
    assert any(moved for name, moved in changed.items() if "visual" not in name)


def test_a_prm_checkpoint_is_a_prm_and_training_goes_on_from_it(tiny_model, tmp_path):
    rows = make_rows(16, steps=True)
    first = train(tiny_model, rows, tmp_path / "0", objective="prm")
    second = train(
        tmp_path / "0/model", rows, tmp_path / "1", objective="prm", resume=tmp_path / "0"
    )
    assert second.losses[0] < first.losses[0]
    load_reward_model(
        load_family(tmp_path / "1/model"), dtype=torch.float32, device=torch.device("cpu")
    )


def test_half_precision_trains_from_full_precision_weights(tiny_model, tmp_path):
    optimization = OPTIMIZATION.model_copy(update={"dtype": "bfloat16"})
    half = train(tiny_model, make_rows(16), tmp_path / "half", optimization=optimization)
    full = train(tiny_model, make_rows(16), tmp_path / "full")
    assert half.losses == pytest.approx(full.losses, rel=0.02)
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.float32}


def test_any_seed_of_63_bits_is_taken(tiny_model, tmp_path):
    train(tiny_model, make_rows(2), tmp_path, seed=2**63 - 1)


class DecodedWhenAsked(Sequence[TrainingRow]):
    """Rows that count how often each is asked for, as a data set that decodes its images would."""

    def __init__(self, rows):
        self.rows = rows
        self.asked: Counter[int] = Counter()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.asked[index] += 1
        return copy.deepcopy(self.rows[index])


def test_each_row_is_asked_for_once_when_memory_suffices(tiny_model, tmp_path):
    rows = DecodedWhenAsked(make_rows(20))
    train(tiny_model, rows, tmp_path, optimization=OPTIMIZATION.model_copy(update={"epochs": 3}))
    assert rows.asked == dict.fromkeys(range(20), 1)


def test_rows_beyond_the_memory_budget_are_encoded_again_and_train_the_same(
    tiny_model, tmp_path, monkeypatch
):
    expected = train(tiny_model, make_rows(20), tmp_path / "0")
    monkeypatch.setattr(EncodedRows.__init__, "__kwdefaults__", {"kept_bytes": 50_000})
    rows = DecodedWhenAsked(make_rows(20))
    found = train(tiny_model, rows, tmp_path / "1")
    assert found.losses == expected.losses
    assert set(rows.asked.values()) == {1, 2}


def test_progress_counts_examples(tiny_model, tmp_path):
    told: list[int] = []
    AccelerateTrainer("policy", tiny_model, Execution(device="cpu")).train(
        make_rows(20),
        OPTIMIZATION,
        seed=0,
        resume_from=None,
        save_to=tmp_path,
        progress=told.append,
    )
    assert sorted(told) == [0, 4, 8, 8]
