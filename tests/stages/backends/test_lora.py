"""Adapters train beside frozen weights, are saved merged, and go on from a checkpoint without being merged twice."""

import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from mstar.errors import MissingDependency, ModelError
from mstar.models.family import load_family
from mstar.models.lora import attach, target_names
from mstar.optimization import Lora
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Ref
from mstar.storage.reading import materialise
from mstar.tasks import TrainTask, task_hash
from tests.stages.backends.rows import make_rows
from tests.stages.backends.training import OPTIMIZATION, distance, train, weights
from tests.stages.steps import attempt, make_policy_task

LORA = Lora(rank=3, alpha=6)
ADAPTED = OPTIMIZATION.model_copy(update={"lora": LORA})
CPU = torch.device("cpu")
LAYERS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


def with_lora(**values):
    return OPTIMIZATION.model_copy(update={"lora": Lora(rank=3, alpha=6, **values)})


def load(path):
    return load_family(path).load(dtype=torch.float32, device=CPU)


def learned(before, after):
    """The singular values of what each changed matrix has learned, by name."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert old.keys() == new.keys()
    changed = {name: new[name] - old[name] for name in old if not torch.equal(old[name], new[name])}
    return {name: torch.linalg.svdvals(change) for name, change in changed.items()}


def test_an_adapter_adds_nothing_before_it_has_learned(tiny_model, family):
    plain, adapted = load(tiny_model), load(tiny_model)
    attach(adapted, family, LORA, freeze=(), seed=1)
    batch = family.collate(family.encode([make_rows(1)[0].prompt]), [(9, 10)], pad="right")
    with torch.inference_mode():
        torch.testing.assert_close(adapted(**batch).logits, plain(**batch).logits)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)


def test_adapters_follow_from_the_seed_and_leave_the_random_state_alone(tiny_model, family):
    def drawn(seed):
        model = load(tiny_model)
        attach(model, family, LORA, freeze=(), seed=seed)
        return torch.cat(
            [p.flatten() for name, p in model.named_parameters() if ".lora_A." in name]
        )

    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_the_language_model_s_linear_layers_learn_and_at_most_of_the_rank_asked(
    tiny_model, tmp_path
):
    report = train(tiny_model, make_rows(40), tmp_path, optimization=ADAPTED)
    assert report.losses[-1] < report.losses[0]
    found = learned(tiny_model, tmp_path / "model")
    assert {name.split(".")[-2] for name in found} == set(LAYERS)
    assert not any("visual" in name for name in found)
    for values in found.values():
        assert values[2] > 1e-3 * values[0]
        assert values[3] < 1e-5 * values[0]


def test_what_is_saved_is_what_peft_makes_of_the_base_and_the_adapter(tiny_model, tmp_path):
    peft = pytest.importorskip("peft")
    train(tiny_model, make_rows(16), tmp_path, optimization=ADAPTED)
    base = AutoModelForImageTextToText.from_pretrained(tiny_model)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "trainer/adapter")
    expected = adapted.merge_and_unload().state_dict()
    found = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


@pytest.mark.parametrize("objective", ["policy", "prm"])
def test_a_pass_left_and_taken_up_again_equals_one_that_was_not(tiny_model, tmp_path, objective):
    rows = make_rows(44, steps=True)
    how = {"objective": objective, "optimization": with_lora(dropout=0.2)}
    once = train(tiny_model, rows, tmp_path / "once", **how)
    first = train(tiny_model, rows, tmp_path / "0", stop=2, **how)
    second = train(tiny_model, rows, tmp_path / "1", resume=tmp_path / "0", **how)
    assert first.losses + second.losses == once.losses
    assert distance(tmp_path / "once", tmp_path / "1") == 0


def test_a_prm_s_head_is_trained_in_full_and_goes_on(tiny_model, tmp_path):
    rows = make_rows(16, steps=True)
    how = {"objective": "prm", "optimization": ADAPTED}
    heads = []
    for number in range(2):
        before = tmp_path / str(number - 1) if number else None
        train(tiny_model, rows, tmp_path / str(number), resume=before, **how)
        heads.append(load_file(tmp_path / str(number) / "model/prm_head.safetensors")["weight"])
    mean = load(tiny_model).get_input_embeddings().weight.mean(dim=0)
    first, second = ((head[0] - mean).abs() for head in heads)
    assert first.min() > 0
    assert second.mean() > first.mean()


def test_iterations_train_one_adapter_on_the_first_weights(tiny_model, tmp_path):
    """Through stage and store: the third step's weights differ from the base by one adapter's rank, not by three."""
    store = FolderStore(tmp_path / "store")
    task = make_policy_task(store, tiny_model, tmp_path / "data", rows=16)
    task = task.model_copy(update={"optimization": ADAPTED})
    steps = []
    for number in range(3):
        manifest = attempt(store, task, tmp_path / str(number))
        steps.append(manifest.results["global_step"])
        last = Ref.of(manifest)
        task = TrainTask.model_validate(
            task.model_dump() | {"model": last, "optimizer": last, "seed": number + 4}
        )
    assert steps == [2, 4, 6]
    assert manifest.usage["tokens_per_second"] > 0
    found = learned(tiny_model, materialise(store, manifest, "model/", tmp_path))
    assert found
    assert all(values[3] < 1e-5 * values[0] for values in found.values())


def test_adapters_of_another_checkpoint_than_the_model_s_are_refused(tiny_model, tmp_path):
    store = FolderStore(tmp_path / "store")
    task = make_policy_task(store, tiny_model, tmp_path / "data", rows=8)
    other = task.data.model_copy(update={"kind": "step"})
    with pytest.raises(ValueError, match="model must be that checkpoint too"):
        TrainTask.model_validate(
            task.model_dump() | {"optimizer": other, "optimization": ADAPTED.model_dump()}
        )


def test_an_older_task_keeps_its_hash(tiny_model, tmp_path):
    task = make_policy_task(FolderStore(tmp_path / "store"), tiny_model, tmp_path / "data", rows=2)
    assert "lora" not in task.model_dump_json()
    adapted = task.model_copy(update={"optimization": ADAPTED})
    assert task_hash(adapted) != task_hash(task)


def test_half_precision_holds_the_frozen_weights_in_half_and_trains_adapters_in_full(
    tiny_model, tmp_path
):
    half = ADAPTED.model_copy(update={"dtype": "bfloat16"})
    found = train(tiny_model, make_rows(16), tmp_path / "half", optimization=half)
    full = train(tiny_model, make_rows(16), tmp_path / "full", optimization=ADAPTED)
    assert found.losses == pytest.approx(full.losses, rel=0.02)
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.bfloat16}
    adapter = load_file(tmp_path / "half/trainer/adapter/adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}


def test_named_targets_are_found_in_any_part_that_is_not_frozen(family, tiny_model):
    model = load(tiny_model)
    everywhere = target_names(model, family, Lora(targets=("q_proj", "qkv")), ())
    assert {name.rpartition(".")[2] for name in everywhere} == {"q_proj", "qkv"}
    with pytest.raises(ModelError, match=r"names qkv, but no linear layer .* there are .*q_proj"):
        target_names(model, family, Lora(targets=("q_proj", "qkv")), ["vision"])


def test_targets_that_cannot_be_adapted_are_refused(family, tiny_model):
    model = load(tiny_model)
    with pytest.raises(ModelError, match=r"no linear layer .* freeze \(language\)"):
        target_names(model, family, LORA, ["language"])
    with pytest.raises(ModelError, match="lm_head, which holds the embeddings or the output head"):
        target_names(model, family, Lora(targets=("lm_head",)), ())


def test_other_adapters_are_not_gone_on_with(tiny_model, tmp_path):
    train(tiny_model, make_rows(8), tmp_path / "0", optimization=ADAPTED)
    with pytest.raises(ModelError, match="are not those of this model"):
        train(
            tiny_model,
            make_rows(8),
            tmp_path / "1",
            resume=tmp_path / "0",
            optimization=with_lora(targets=("q_proj",)),
        )
    train(tiny_model, make_rows(8), tmp_path / "2")
    with pytest.raises(ModelError, match="its lora is null, this step asks for"):
        train(
            tiny_model,
            make_rows(8),
            tmp_path / "3",
            resume=tmp_path / "2",
            optimization=ADAPTED,
        )


def test_without_peft_its_name_is_said(tiny_model, family, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependency, match="peft is not installed"):
        attach(load(tiny_model), family, LORA, freeze=(), seed=0)
