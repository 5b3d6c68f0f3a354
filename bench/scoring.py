"""Scoring with shared prompts against scoring each response alone: ``python -m bench.scoring``.

Both score the same responses with the same PRM in batches of as many rows, in the same run, alternately; each keeps
its best time. Alone, a response is read with a prompt and an image of its own, as one would write it by hand. The
model is the demo's with larger images; the prompt's length is the image's tokens and the question's.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from bench.sampling import BASE, make_prompts, quiet
from mstar.core.records import Finish, Response
from mstar.execution import Execution
from mstar.models.family import load_family
from mstar.models.prm import load_reward_model, save_head
from mstar.stages.backends.encoding import encode_distinct
from mstar.stages.backends.transformers_scorer import TransformersScorer
from mstar.stages.protocols import Prompted

CONTEXT = 4096


def make_prm(folder: Path, base: Path, side: int) -> Path:
    """A model as an untrained PRM that sees images of ``side`` x ``side`` pixels as they are."""
    shutil.copytree(base, folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    size = {"shortest_edge": side * side, "longest_edge": side * side}
    settings["image_processor"]["size"] = size
    (folder / "processor_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    held = config["text_config"]["max_position_embeddings"]
    config["text_config"]["max_position_embeddings"] = max(held, CONTEXT)
    (folder / "config.json").write_text(json.dumps(config))
    cpu = torch.device("cpu")
    model = load_reward_model(load_family(folder), dtype=torch.float32, device=cpu, fresh_head=True)
    save_head(model.head.state_dict(), folder)
    return folder


def make_pairs(
    queries: int, samples: int, side: int, answer: int, vocabulary: int
) -> tuple[list[Prompted], list[Response]]:
    """``samples`` responses of ``answer`` tokens, drawn at random, to each of the demo's questions."""
    rng = random.Random(0)
    prompts, responses = [], []
    for prompt in make_prompts(queries, 1):
        large = replace(prompt, image=prompt.image.resize((side, side)))
        for sample in range(samples):
            tokens = tuple(rng.randrange(7, vocabulary) for _ in range(answer))
            prompts.append(large)
            responses.append(
                Response(
                    query_id=prompt.query_id,
                    sample=sample,
                    text="",
                    tokens=tokens,
                    finish=Finish.STOP,
                    temperature=1.0,
                    policy="p",
                    seed=0,
                )
            )
    return prompts, responses


def measure(
    *,
    model: Path,
    device: str,
    queries: int,
    samples: int,
    side: int,
    answer: int,
    rows: int,
    repeats: int,
    threads: int,
) -> dict[str, Any]:
    """Responses a second of both ways, and how long prompts and responses were."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_prm(Path(scratch) / "prm", model, side)
        how = Execution(threads=threads, scoring_rows=rows, device=device)
        ways = {name: TransformersScorer(folder, how) for name in ("shared", "alone")}
        ways["alone"].shares = False
        family = ways["shared"].family
        prompts, responses = make_pairs(queries, samples, side, answer, family.vocabulary)
        encoded = encode_distinct(family, prompts)
        best = dict.fromkeys(ways, 0.0)
        scores: dict[str, list[float]] = {}
        for _ in range(repeats):
            for name, scorer in ways.items():
                start = time.perf_counter()
                judged = scorer.score(prompts, responses, quiet)
                best[name] = max(best[name], len(responses) / (time.perf_counter() - start))
                scores[name] = [score for one in judged for score in one.scores]
    apart = [abs(one - other) for one, other in zip(*scores.values(), strict=True)]
    return {
        "benchmark": "scoring",
        "unit": "responses/s",
        "threads": threads,
        "prompt tokens": round(mean(len(code.tokens) for code in encoded)),
        "response tokens": answer,
        "responses a prompt": samples,
        "measured": {name: round(speed, 1) for name, speed in best.items()},
        "largest difference of a score": max(apart),
        "ratio": round(best["shared"] / best["alone"], 2),
        "wanted": 3.0,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BASE)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--answer", type=int, default=80)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    print(json.dumps(measure(**vars(parser.parse_args()))))
