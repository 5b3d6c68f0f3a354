"""Sampling against a bare ``model.generate`` loop at its best batch size: ``python -m bench.sampling``.

Both turn the same prompts into text with the same model, in the same run, alternately; each keeps its best time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from mstar.demo.dataset import draw_split
from mstar.demo.digits import render_image
from mstar.demo.prompts import format_prompt
from mstar.execution import Execution
from mstar.stages.backends.transformers_sampler import TransformersSampler
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling

BASE = Path(__file__).parents[1] / "mstar" / "demo" / "base"


def quiet(count: int) -> None:
    """Report no progress."""
    del count


def make_prompts(count: int, samples: int, side: int | None = None) -> list[Prompted]:
    """The demo's own questions, their pictures drawn larger where a ``side`` in pixels is given."""
    return [
        Prompted(
            query_id=str(index),
            text=format_prompt(question.text, question.options),
            image=_sized(render_image(question.picture), side),
            seeds=tuple(samples * index + sample for sample in range(samples)),
        )
        for index, question in enumerate(draw_split("train", count, seed=0))
    ]


def _sized(image: Image, side: int | None) -> Image:
    return image.resize((side, side)) if side else image


def bare_loop(model_dir: Path, sampling: Sampling) -> Callable[[list[Prompted], int], int]:
    """``generate`` as its documentation shows it, sorted by length; returns the tokens it drew."""
    model = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    processor.tokenizer.padding_side = "left"
    eos = processor.tokenizer.eos_token_id

    def run(prompts: list[Prompted], batch: int) -> int:
        tokens = 0
        for start in range(0, len(prompts), batch):
            chunk = prompts[start : start + batch]
            content = [[{"type": "image"}, {"type": "text", "text": p.text}] for p in chunk]
            turns = [[{"role": "user", "content": part}] for part in content]
            texts = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            images = [[p.image] for p in chunk]
            inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
            with torch.inference_mode():
                output = model.generate(
                    **inputs,
                    do_sample=True,
                    temperature=sampling.temperature,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=sampling.n,
                    max_new_tokens=sampling.max_new_tokens,
                )
            drawn = output[:, inputs["input_ids"].shape[1] :]
            processor.batch_decode(drawn, skip_special_tokens=True)
            before_end = (drawn == eos).cumsum(dim=1) - (drawn == eos).int() == 0
            tokens += int(before_end.sum())
        return tokens

    return run


def measure(model_dir: Path, prompts: int, repeats: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    sampling = Sampling(n=16, temperature=1.0, max_new_tokens=72)
    asked = sorted(make_prompts(prompts, sampling.n), key=lambda p: len(p.text))
    sampler = TransformersSampler(model_dir, Execution(threads=threads, sampling_rows=1024))
    generate = bare_loop(model_dir, sampling)

    def ours() -> int:
        groups = sampler.sample(asked, sampling, "policy", quiet)
        return sum(response.token_count for group in groups for response in group)

    ways: dict[str, Callable[[], int]] = {"sampler": ours}
    for batch in (2, 8, 32):
        ways[f"generate, {batch} prompts"] = partial(generate, asked, batch)
    best = dict.fromkeys(ways, 0.0)
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            tokens = way()
            best[name] = max(best[name], tokens / (time.perf_counter() - start))
    bare = max(speed for name, speed in best.items() if name != "sampler")
    return {
        "benchmark": "sampling",
        "unit": "tokens/s",
        "threads": threads,
        "measured": {name: round(speed) for name, speed in best.items()},
        "ratio": round(best["sampler"] / bare, 2),
        "wanted": 0.9,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(json.dumps(measure(given.model, given.prompts, given.repeats, given.threads)))
