"""Training against a bare accelerate loop on the same batches: ``python -m bench.training``.

Both read the model, encode the rows, train one epoch in the same order and save the model, in the same run,
alternately; each keeps its best time. What ours does beside that (checks, losses of every step, optimizer state in the
checkpoint) counts against it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import AutoModelForImageTextToText, AutoProcessor

from bench.sampling import BASE, make_prompts, quiet
from mstar.core.records import Example, Finish
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.optimization import Optimization
from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
from mstar.stages.backends.order import plan_epoch
from mstar.stages.backends.transformers_sampler import TransformersSampler
from mstar.stages.protocols import TrainingRow
from mstar.tasks import Sampling

OPTIMIZATION = Optimization(learning_rate=6e-4, betas=(0.9, 0.98), weight_decay=0.01)


def make_rows(model_dir: Path, count: int, device: str, side: int | None) -> list[TrainingRow]:
    """What the model itself answers, as the loop would train it."""
    prompts = make_prompts(count, 1, side)
    rows = 1024 if device == "cpu" else 64
    sampler = TransformersSampler(model_dir, Execution(sampling_rows=rows, device=device))
    groups = sampler.sample(prompts, Sampling(n=1, max_new_tokens=72), "p", quiet)
    return [
        TrainingRow(
            prompt=prompt,
            example=Example(
                query_id=response.query_id,
                sample=0,
                text=response.text,
                tokens=response.tokens,
                finish=Finish.STOP,
                policy="p",
                seed=0,
            ),
        )
        for prompt, (response,) in zip(prompts, groups, strict=True)
    ]


def train_bare(
    model_dir: Path,
    rows: Sequence[TrainingRow],
    save_to: Path,
    optimization: Optimization,
    device: str,
) -> None:
    """The loop that one would write by hand: processor, batch, loss, backward, clip, step, by accelerate's tutorial."""
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 (ours has settings of its own)
    precision = "bf16" if optimization.dtype == "bfloat16" else "no"
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    model = AutoModelForImageTextToText.from_pretrained(model_dir, dtype=torch.float32).train()
    processor = AutoProcessor.from_pretrained(model_dir)
    eos, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    content = [[{"type": "image"}, {"type": "text", "text": row.prompt.text}] for row in rows]
    turns = [[{"role": "user", "content": part}] for part in content]
    texts = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    encoded = processor(text=texts, images=[[row.prompt.image] for row in rows])
    prompts, types = encoded["input_ids"], encoded["mm_token_type_ids"]
    grids = encoded["image_grid_thw"]
    patches = encoded["pixel_values"].split(grids.prod(dim=1).tolist())
    answers = [[*row.example.tokens, eos] for row in rows]
    lengths = [len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=6e-4, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    for batch in plan_epoch(lengths, optimization.batch_size, seed=0, epoch=0):
        width = max(lengths[i] for i in batch)
        ids = torch.tensor(
            [[*prompts[i], *answers[i]] + [pad] * (width - lengths[i]) for i in batch]
        )
        kinds = torch.tensor([types[i] + [0] * (width - len(types[i])) for i in batch])
        mask = torch.tensor([[1] * lengths[i] + [0] * (width - lengths[i]) for i in batch])
        labels = ids.masked_fill(mask == 0, -100)
        for row, i in enumerate(batch):
            labels[row, : len(prompts[i])] = -100
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_token_type_ids": kinds,
            "pixel_values": torch.cat([patches[i] for i in batch]),
            "image_grid_thw": grids[batch],
            "labels": labels,
        }
        loss = model(**{name: each.to(accelerator.device) for name, each in inputs.items()}).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.unwrap_model(model).save_pretrained(save_to)
    processor.save_pretrained(save_to)


def measure(
    *,
    model: Path,
    rows: int,
    repeats: int,
    threads: int,
    device: str,
    side: int | None,
    batch: int,
) -> dict[str, Any]:
    """Examples a second of both ways; on a GPU both compute in bfloat16."""
    torch.set_num_threads(threads)
    dtype = "float32" if device == "cpu" else "bfloat16"
    optimization = OPTIMIZATION.model_copy(update={"batch_size": batch, "dtype": dtype})
    examples = make_rows(model, rows, device, side)
    # Load once, so that neither pays for imports.
    load_family(model)

    def ours(folder: Path) -> None:
        AccelerateTrainer("policy", model, Execution(threads=threads, device=device)).train(
            examples,
            optimization,
            seed=0,
            resume_from=None,
            save_to=folder,
            progress=quiet,
        )

    ways: dict[str, Callable[[Path], None]] = {
        "bare accelerate loop": lambda folder: train_bare(
            model, examples, folder, optimization, device
        ),
        "trainer": ours,
    }
    best = dict.fromkeys(ways, 0.0)
    for _ in range(repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                way(Path(folder))
                best[name] = max(best[name], rows / (time.perf_counter() - start))
    return {
        "benchmark": "training",
        "unit": "examples/s",
        "threads": threads,
        "measured": {name: round(speed) for name, speed in best.items()},
        "ratio": round(best["trainer"] / best["bare accelerate loop"], 2),
        "wanted": 0.95,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--rows", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--side", type=int, default=None)
    parser.add_argument("--batch", type=int, default=64)
    print(json.dumps(measure(**vars(parser.parse_args()))))
