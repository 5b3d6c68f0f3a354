"""Each check of a model is well with a model that is well, and fails on the fault that it exists for."""

import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mstar.errors import ModelError, OutOfMemory
from mstar.models.qwen_vl import QwenVLFamily
from mstar.stages.backends import objectives
from mstar.stages.backends.modelcheck import agreeing, learning, reading, saving
from mstar.stages.backends.modelcheck.examination import (
    FOLDER,
    LOSS,
    POLICY,
    WEIGHTS,
    Wanted,
    examine,
    examine_with,
)
from mstar.stages.backends.modelcheck.finding import Check, Fault, NotTried, make
from mstar.stages.backends.modelcheck.patient import Patient
from tests.stages.backends.patients import (
    ON_CPU,
    BelievingItsCut,
    Blind,
    CountingPadding,
    Cutting,
    CuttingHeads,
    CuttingImages,
    Mixing,
    NoMask,
    OneEyed,
    Shifted,
    admitted,
    opened,
)
from tests.tiny import build_tiny_model

NOT_HERE = {"vllm", "vllm = trainer", "rounding"}
"""What a machine without vLLM and without a GPU cannot try."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("well"))


@pytest.fixture
def well(folder):
    return admitted(folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def by_name(findings):
    return {finding.what: finding for finding in findings}


@pytest.mark.parametrize("kind", ["qwen2_vl", "llava"])
def test_a_model_that_is_well_passes_every_check(kind, tmp_path):
    model = build_tiny_model(tmp_path / kind, kind=kind)
    findings = by_name(examine(Wanted(model=model, device="cpu", max_pixels=1 << 20)))
    assert {f.what for f in findings.values() if f.ok is None} <= NOT_HERE
    assert not [f for f in findings.values() if f.ok is False]
    assert "3 steps" in findings["response text"].found
    assert findings["vllm"].found.startswith("not tried: ")
    assert "greedy tokens" in findings["sampler = trainer"].found


def test_a_model_that_is_well_passes_in_the_trainer_s_bfloat16(folder):
    checks = [check for check in POLICY if check.what != "save and load"]
    patient = Patient(path=folder, execution=ON_CPU, dtype="bfloat16")
    assert not [f for f in examine_with(checks, patient) if f.ok is False]


@pytest.mark.parametrize("family", [Cutting, CuttingHeads])
def test_a_prompt_that_is_cut_is_seen_without_weights(folder, family):
    with pytest.raises(Fault, match=r"not whole in the prompt|differs from picture to picture"):
        reading.pictures(opened(folder, family))


def test_image_tokens_that_are_cut_are_seen_without_weights_and_by_the_model(folder):
    with pytest.raises(Fault, match="of its image, but measured"):
        reading.pictures(opened(folder, CuttingImages))
    patient = admitted(folder, BelievingItsCut)
    finding = make(Check(what="seen", look=learning.picture_seen), patient, set())
    assert (finding.ok, finding.code) == (False, ModelError.exit_code)
    assert "image" in finding.found.lower()


@pytest.mark.parametrize("family", [Blind, OneEyed])
def test_a_picture_or_a_part_of_it_that_the_model_does_not_see_is_a_fault(folder, family):
    with pytest.raises(Fault, match="quarters are not seen"):
        learning.picture_seen(admitted(folder, family))


def test_a_collate_that_shifts_rows_shifts_the_mask(folder):
    with pytest.raises(Fault, match="the loss covers"):
        learning.loss_mask(admitted(folder, Shifted))


@pytest.mark.parametrize("by", [-1, 1])
def test_a_label_mask_off_by_one_is_a_fault(well, monkeypatch, by):
    def assemble(*arguments):
        inputs, answered, targets = real(*arguments)
        return inputs, answered.roll(by, dims=1), targets

    real = objectives.assemble
    monkeypatch.setattr(learning, "assemble", assemble)
    with pytest.raises(Fault, match="the loss covers"):
        learning.loss_mask(well)


def test_a_loss_of_the_tokens_that_stand_there_instead_of_those_that_come_next_is_a_fault(
    well, monkeypatch
):
    class Unshifted(objectives.PolicyLoss):
        def forward(self, inputs, answered, targets):
            logits = self.model(**inputs, use_cache=False).logits[answered]
            ids = inputs["input_ids"][answered]
            return torch.nn.functional.cross_entropy(logits, ids, reduction="sum")

    monkeypatch.setattr(learning, "PolicyLoss", Unshifted)
    with pytest.raises(Fault, match="by hand"):
        learning.loss_mask(well)


def test_an_objective_that_never_learns_to_end_is_a_fault(well, monkeypatch):
    real = Patient.item
    monkeypatch.setattr(
        Patient,
        "item",
        lambda *arguments: replace(found := real(*arguments), answer=found.answer[:20]),
    )
    with pytest.raises(Fault, match="the trainer learns 20 tokens"):
        learning.loss_mask(well)


def test_rows_that_disturb_each_other_in_a_batch_are_a_fault(folder):
    with pytest.raises(Fault, match="together"):
        learning.batch_and_single(admitted(folder, Mixing))


@pytest.mark.parametrize("family", [CountingPadding, NoMask])
def test_left_padding_without_positions_or_mask_is_seen_in_a_forward_and_in_sampling(
    folder, family
):
    patient = admitted(folder, family)
    with pytest.raises(Fault, match="padded on the left"):
        learning.left_padding(patient)
    with pytest.raises(Fault, match="trainer and engine"):
        agreeing.sampler(patient)


def test_weights_that_lack_a_tensor_leave_what_needs_them_untried_and_nothing_else(copy):
    path = copy / "model.safetensors"
    held = load_file(path)
    held.pop(next(name for name in held if name.endswith("q_proj.weight")))
    save_file(held, path, metadata={"format": "pt"})
    findings = by_name(examine(Wanted(model=copy, device="cpu", max_pixels=1 << 20)))
    assert "q_proj" in findings[WEIGHTS].found
    assert findings[WEIGHTS].code == ModelError.exit_code
    assert [f.what for f in findings.values() if f.ok is False] == [WEIGHTS]
    assert findings[LOSS].found == "not tried: it needs 'weights'"
    assert findings["banned tokens"].ok


def test_nan_among_the_weights_is_named(copy):
    path = copy / "model.safetensors"
    held = load_file(path)
    name = next(name for name in held if name.endswith("k_proj.weight"))
    held[name][3, 4] = float("nan")
    save_file(held, path, metadata={"format": "pt"})
    patient = opened(copy)
    with pytest.raises(Fault, match=r"1 of \d+ tensors hold NaN.*k_proj"):
        learning.weights(patient)


def test_a_tokenizer_of_a_larger_model_is_a_fault(folder):
    patient = opened(folder)
    patient.family.vocabulary = 1000
    with pytest.raises(Fault, match=r"knows 1000 tokens.*embeddings for 104"):
        learning.weights(patient)


def test_a_template_that_closes_answers_with_another_token_is_a_fault(folder):
    patient = opened(folder)
    assert "no token of its own" in reading.end_of_response(patient)
    patient.family.processor.chat_template += "<|im_end|>"
    assert "closes an answer with '<|im_end|>'" in reading.end_of_response(patient)
    patient.family.eos = patient.family.tokenize("!")
    with pytest.raises(Fault, match="responses would run on"):
        reading.end_of_response(patient)


@pytest.mark.parametrize(
    ("eos", "said"), [((), "no token"), ((0,), "1 are banned"), ((5000,), "1 are unknown")]
)
def test_an_end_token_that_cannot_be_drawn_is_a_fault(folder, eos, said):
    patient = opened(folder)
    patient.family.eos = eos
    with pytest.raises(Fault, match=said):
        reading.end_of_response(patient)


@pytest.mark.parametrize("banned", [(), (0, 1)])
def test_a_placeholder_that_may_be_drawn_is_a_fault(folder, banned):
    patient = opened(folder)
    reading.pictures(patient)
    assert "'<|image_pad|>' among them" in reading.banned_tokens(patient)
    patient.family.banned = banned
    with pytest.raises(Fault, match=r"'<\|image_pad\|>' should be"):
        reading.banned_tokens(patient)


class Trimming(QwenVLFamily):
    """Decodes without newlines."""

    def decode(self, tokens, *, prefix=()):
        return super().decode(tokens, prefix=prefix).replace("\n", " ")


class Beginning(QwenVLFamily):
    """Begins every text with a special token."""

    def tokenize(self, text):
        return (self.tokenizer.bos_token_id, *super().tokenize(text))


class Stepless(QwenVLFamily):
    """Gives tokens' texts without newlines."""

    def pieces(self, tokens):
        return [piece.strip("\n") for piece in super().pieces(tokens)]


class Forgetful(QwenVLFamily):
    """Loses a character where a response goes on."""

    def decode(self, tokens, *, prefix=()):
        return super().decode(tokens, prefix=prefix)[1 if prefix else 0 :]


@pytest.mark.parametrize(
    ("family", "said"),
    [
        (Trimming, "comes back as"),
        (Beginning, "never drawn"),
        (Stepless, "3 lines are found as 1 steps"),
        (Forgetful, "where they meet"),
    ],
)
def test_text_that_changes_on_its_way_through_tokens_is_a_fault(folder, family, said):
    with pytest.raises(Fault, match=said):
        reading.response_text(opened(folder, family))


def test_a_largest_picture_beyond_the_context_says_what_to_set(folder):
    patient = opened(folder)
    reading.pictures(patient)
    assert "which leaves" in reading.largest_picture(patient)
    patient.family.context = 100
    with pytest.raises(Fault, match="the context is 100") as caught:
        reading.largest_picture(patient)
    assert "execution.max_pixels to about" in caught.value.advice


def test_a_context_too_small_for_any_picture_is_a_fault(folder):
    patient = opened(folder)
    patient.family.context = 60
    with pytest.raises(Fault, match="leave too little of the context of 60"):
        reading.pictures(patient)


def test_groups_that_freeze_nothing_or_the_same_twice_are_faults(well, monkeypatch):
    real = well.family.parameters
    assert "in model.visual" in learning.freezing(well)
    monkeypatch.setattr(well.family, "parameters", lambda m, g: [] if g == "vision" else real(m, g))
    with pytest.raises(Fault, match="vision would freeze nothing"):
        learning.freezing(well)
    monkeypatch.setattr(well.family, "parameters", lambda m, g: real(m, "vision"))
    with pytest.raises(Fault, match="is in two groups"):
        learning.freezing(well)


def test_a_part_that_no_gradient_reaches_is_a_fault(well, monkeypatch):
    visual = well.model.model.visual
    visual.forward = torch.no_grad()(visual.forward)
    with pytest.raises(Fault, match=r"0 of \d+ sampled vision tensors"):
        learning.gradients(well)
    idle = [torch.nn.Parameter(torch.ones(2))]
    monkeypatch.setattr(well.family, "parameters", lambda model, group: idle)
    with pytest.raises(Fault, match="0 of 1 sampled language tensors"):
        learning.gradients(well)


def test_gradients_leave_every_parameter_trainable(well):
    learning.gradients(well)
    assert all(p.requires_grad and p.grad is None for p in well.model.parameters())


def test_sampling_leaves_attention_as_it_was(well):
    before = well.model.get_decoder().config._attn_implementation
    agreeing.sampler(well)
    assert well.model.get_decoder().config._attn_implementation == before


def test_rounding_is_measured_where_the_sampler_rounds(well, monkeypatch):
    agreeing.sampler(well)
    with pytest.raises(NotTried, match="float32, too"):
        agreeing.rounding(well)
    monkeypatch.setattr(Patient, "sampling_dtype", torch.bfloat16)
    monkeypatch.setattr(
        agreeing, "DRIFT", (1.0, 10.0)
    )  # of random weights; a trained model drifts less
    assert "in bfloat16 and the trainer in float32" in agreeing.rounding(well)
    assert well.model.dtype == torch.bfloat16


def test_weights_too_large_for_the_sampler_s_numbers_are_a_fault(well, monkeypatch):
    agreeing.sampler(well)
    monkeypatch.setattr(Patient, "sampling_dtype", torch.float16)
    scale = next(
        p for n, p in well.model.named_parameters() if n.endswith("input_layernorm.weight")
    )
    scale.data.mul_(1e6)
    with pytest.raises(Fault, match="of the sampler in float16"):
        agreeing.rounding(well)


def test_a_save_that_changes_a_tensor_is_a_fault(well, monkeypatch, tmp_path):
    real = well.model.save_pretrained

    def save(folder, **given):
        real(folder, **given)
        held = load_file(folder / "model.safetensors")
        next(iter(held.values())).add_(1)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(well.model, "save_pretrained", save)
    well.scratch = tmp_path
    with pytest.raises(Fault, match=r"1 of \d+ tensors are others after saving"):
        saving.save_and_load(well)
    assert not list(tmp_path.iterdir())


def test_a_save_without_all_of_the_processor_is_a_fault(well, monkeypatch, tmp_path):
    real = well.family.save_processor

    def save(folder, **given):
        real(folder, **given)
        (folder / "chat_template.jinja").unlink()

    monkeypatch.setattr(well.family, "save_processor", save)
    well.scratch = tmp_path
    with pytest.raises(ModelError, match="chat template"):
        saving.save_and_load(well)


def test_a_disk_without_room_is_said_and_nothing_is_written(well, monkeypatch, tmp_path):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(NotTried, match="TMPDIR"):
        saving.save_and_load(well)
    assert well.model is not None


def test_whatever_a_check_raises_becomes_a_finding_and_what_it_prints_is_kept_off_the_table(capsys):
    def boom(_):
        sys.stdout.write("noise")
        raise KeyError("pixel_values")

    def fill(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    found = make(Check(what="a", look=boom), None, set())
    assert (found.ok, found.code) == (False, ModelError.exit_code)
    assert capsys.readouterr().out == ""
    assert "KeyError: 'pixel_values'" in found.found
    assert "test_modelcheck.py:" in found.found
    full = make(Check(what="b", look=fill), None, set())
    assert (full.ok, full.code) == (False, OutOfMemory.exit_code)
    assert "--max-pixels" in full.advice


def test_a_folder_that_is_no_model_leaves_the_rest_untried(tmp_path):
    findings = list(examine(Wanted(model=tmp_path, device="cpu")))
    assert findings[0].what == FOLDER
    assert "no config.json" in findings[0].found
    assert {finding.ok for finding in findings[1:-1]} == {None}
