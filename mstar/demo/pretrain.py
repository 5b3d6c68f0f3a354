"""Build the base model from nothing: first the eyes, then the language.

The vision tower learns to tell digits apart, a stand-in for the pre-trained image encoder of a
real model. Then the whole model learns the planted corpus (see `mstar.demo.rationales`). Both
are counted in steps, never in seconds, so one seed gives one model on one machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from mstar.demo.corpus import IGNORED, Example, encode_samples, pad_examples, patches
from mstar.demo.digits import digit_pools, draw_picture, render_pixels
from mstar.demo.model import build_model, build_processor, save_model
from mstar.demo.questions import draw_question
from mstar.demo.rationales import Mixture, draw_sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor

WINDOW = 8
"""How many batches are drawn at a time, to be sorted by length."""

Phase = Literal["vision", "language"]
Progress = Callable[[Phase, int, int, float], None]
"""Called after every step with the phase, the step (from 1), the phase's steps and the loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """How the base is built."""

    seed: int = 0
    size: str = "base"
    vision_steps: int = 400
    vision_batch: int = 128
    vision_rate: float = 2e-3
    vision_noise: float = 0.15
    """Standard deviation of the noise on pixels in -1..1 that the vision tower trains with."""
    steps: int = 2200
    batch: int = 64
    rate: float = 2e-3
    warmup_steps: int = 150
    weight_decay: float = 0.01
    mixture: Mixture = field(default_factory=Mixture)


def pretrain(
    processor: Qwen2VLProcessor,
    settings: Pretraining,
    *,
    progress: Progress = lambda *_: None,
) -> Qwen2VLForConditionalGeneration:
    """Return a base model trained from scratch. Sets torch's global random state."""
    model = build_model(processor, seed=settings.seed, size=settings.size)
    model.train()
    train_vision(model, processor, settings, progress=progress)
    train_language(model, processor, settings, progress=progress)
    return model.eval()


def build_base(
    folder: Path, settings: Pretraining | None = None, *, progress: Progress = lambda *_: None
) -> None:
    """Pre-train a base model and write it, with its processor, as a Hugging Face model folder."""
    processor = build_processor()
    model = pretrain(processor, settings or Pretraining(), progress=progress)
    save_model(folder, model, processor)


def train_vision(
    model: Qwen2VLForConditionalGeneration,
    processor: Qwen2VLProcessor,
    settings: Pretraining,
    *,
    progress: Progress = lambda *_: None,
) -> None:
    """Teach the vision tower to classify the digit behind each image token, in place.

    The linear classifier that sits on it meanwhile is thrown away.
    """
    rng = random.Random(f"{settings.seed}/vision")
    pool = digit_pools()["pretrain"]
    tower = model.model.visual
    head = nn.Linear(model.config.text_config.hidden_size, 10)
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.vision_rate, weight_decay=0.05)
    for step in range(1, settings.vision_steps + 1):
        pictures = [draw_picture(rng, pool) for _ in range(settings.vision_batch)]
        pixels, grid = patches([render_pixels(picture) for picture in pictures], processor)
        pixels = pixels + settings.vision_noise * torch.randn_like(pixels)
        labels = torch.tensor([picture.digits for picture in pictures]).flatten()
        features = tower(pixels, grid_thw=grid).pooler_output
        loss = nn.functional.cross_entropy(head(features), labels)
        _set_rate(optimizer, settings.vision_rate * _cosine(step, settings.vision_steps, 0))
        _update(optimizer, loss, parameters)
        progress("vision", step, settings.vision_steps, loss.item())


def train_language(
    model: Qwen2VLForConditionalGeneration,
    processor: Qwen2VLProcessor,
    settings: Pretraining,
    *,
    progress: Progress = lambda *_: None,
) -> None:
    """Train the whole model on the planted corpus, in place; the loss is on responses only."""
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    for step, batch in enumerate(_batches(processor, settings), start=1):
        inputs, labels = pad_examples(batch, processor)
        inputs["position_ids"] = _positions(model, inputs)
        hidden = model.model(**inputs).last_hidden_state
        answered = labels[:, 1:] != IGNORED
        logits = model.lm_head(hidden[:, :-1][answered])
        loss = nn.functional.cross_entropy(logits, labels[:, 1:][answered])
        _set_rate(optimizer, settings.rate * _cosine(step, settings.steps, settings.warmup_steps))
        _update(optimizer, loss, parameters)
        progress("language", step, settings.steps, loss.item())


def _batches(processor: Qwen2VLProcessor, settings: Pretraining) -> Iterator[list[Example]]:
    """Yield the corpus in batches of about equal lengths, which wastes less on padding.

    A batch's loss is the mean over its own targets, so a token of a short response counts for
    more: the model guesses more often than the mixture does, and learns to read sooner.
    """
    rng = random.Random(f"{settings.seed}/language")
    pool = digit_pools()["pretrain"]
    for first in range(0, settings.steps, WINDOW):
        count = min(WINDOW, settings.steps - first)
        samples, pictures = [], []
        for _ in range(count * settings.batch):
            question = draw_question(rng, pool)
            samples.append(draw_sample(question, settings.mixture, rng))
            pictures.append(question.picture)
        examples = encode_samples(samples, pictures, processor)
        examples.sort(key=lambda example: len(example.tokens))
        starts = list(range(0, len(examples), settings.batch))
        rng.shuffle(starts)
        for start in starts:
            yield examples[start : start + settings.batch]


def _positions(
    model: Qwen2VLForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the rotary positions, shape (3, examples, length), worked out for one row.

    Every row begins with the picture and is padded on the right, so all rows have the same.
    """
    longest = int(inputs["attention_mask"].sum(1).argmax())
    row = slice(longest, longest + 1)
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"][row],
        mm_token_type_ids=inputs["mm_token_type_ids"][row],
        image_grid_thw=inputs["image_grid_thw"][row],
    )
    return positions.expand(-1, len(inputs["input_ids"]), -1)


def _cosine(step: int, steps: int, warmup: int) -> float:
    """Return the share of the peak rate: linear warm-up, then a cosine down to 3 %."""
    ramp = min(1.0, step / warmup) if warmup else 1.0
    return ramp * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _update(
    optimizer: torch.optim.Optimizer, loss: torch.Tensor, parameters: list[nn.Parameter]
) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
