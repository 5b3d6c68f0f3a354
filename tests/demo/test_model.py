"""The tiny model: stock classes, loaded by the Auto classes, with a lossless tokenizer."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor

from mstar.demo.corpus import encode_samples, pad_examples, patches
from mstar.demo.digits import digit_pools, render_image, render_pixels
from mstar.demo.model import build_model, build_processor, save_model
from mstar.demo.pretrain import Pretraining, pretrain
from mstar.demo.prompts import format_prompt
from mstar.demo.questions import draw_question
from mstar.demo.rationales import Mixture, Sample, draw_sample
from mstar.demo.tokenizer import SPECIAL_TOKENS, build_tokenizer

TOKENIZER = build_tokenizer()
PROCESSOR = build_processor()
QUESTION = draw_question(random.Random(0), digit_pools()["train"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model(path, build_model(PROCESSOR, seed=0), PROCESSOR)
    return path


@given(st.text())
@settings(deadline=None)
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER(text).input_ids
    assert TOKENIZER.decode(ids) == text


@given(st.integers(min_value=0, max_value=2**32))
@settings(deadline=None)
def test_the_corpus_survives_the_tokenizer_without_character_tokens(seed: int) -> None:
    rng = random.Random(seed)
    sample = draw_sample(draw_question(rng, digit_pools()["train"]), Mixture(), rng)
    for text in (sample.prompt, sample.response):
        ids = TOKENIZER(text).input_ids
        assert TOKENIZER.decode(ids) == text
        pieces = [TOKENIZER.decode([token]) for token in ids]
        assert all(len(piece) > 1 or piece in "0123456789.:}" for piece in pieces)


def test_the_auto_classes_load_the_saved_folder(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    content = [
        {"type": "image"},
        {"type": "text", "text": format_prompt(QUESTION.text, QUESTION.options)},
    ]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    assert text.startswith("<|vision_start|><|image_pad|><|vision_end|>")
    assert text.endswith("\n")
    inputs = processor(text=[text], images=[render_image(QUESTION.picture)], return_tensors="pt")
    assert int((inputs.input_ids == processor.image_token_id).sum()) == 4
    output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] <= inputs.input_ids.shape[1] + 3


def test_the_loaded_processor_knows_its_special_tokens_and_pads_on_the_left(folder: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    assert tokenizer.padding_side == "left"
    assert [tokenizer.decode([i]) for i in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)
    assert tokenizer.decode([tokenizer.eos_token_id]) == "<|im_end|>"
    assert set(SPECIAL_TOKENS) <= set(tokenizer.all_special_tokens)


def test_the_saved_folder_is_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5_000_000


def test_pretraining_sees_what_the_processor_makes_of_prompt_and_picture() -> None:
    prompt = format_prompt(QUESTION.text, QUESTION.options)
    sample = Sample(prompt=prompt, response="Answer: \\boxed{3}")
    inputs, labels = pad_examples(
        encode_samples([sample], [QUESTION.picture], PROCESSOR), PROCESSOR
    )
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    text = PROCESSOR.apply_chat_template([{"role": "user", "content": content}])
    real = PROCESSOR(
        text=[text + sample.response + "<|im_end|>"],
        images=[render_image(QUESTION.picture)],
        return_tensors="pt",
    )
    assert torch.equal(inputs["input_ids"], real["input_ids"])
    assert torch.equal(inputs["mm_token_type_ids"], real["mm_token_type_ids"].int())
    assert torch.allclose(inputs["pixel_values"], real["pixel_values"], atol=1e-6)
    assert torch.equal(inputs["image_grid_thw"], real["image_grid_thw"])
    answered = labels[labels != -100]
    assert PROCESSOR.tokenizer.decode(answered) == sample.response + "<|im_end|>"


def test_patches_keep_the_order_of_pictures() -> None:
    pixels = render_pixels(QUESTION.picture)
    both, _ = patches([pixels, 255 - pixels], PROCESSOR)
    one, _ = patches([255 - pixels], PROCESSOR)
    assert torch.equal(both[16:], one)


def test_pretraining_is_deterministic_and_reports_every_step() -> None:
    tiny = Pretraining(vision_steps=2, vision_batch=4, steps=3, batch=4)
    seen: list[tuple[str, int, int]] = []
    first = pretrain(PROCESSOR, tiny, progress=lambda *now: seen.append(now[:3]))
    second = pretrain(PROCESSOR, tiny)
    assert seen == [("vision", n, 2) for n in (1, 2)] + [("language", n, 3) for n in (1, 2, 3)]
    weights = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
