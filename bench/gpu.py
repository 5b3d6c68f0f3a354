"""Sampling by vLLM, training and scoring on one GPU with a model of 2B's size: ``python -m bench.gpu``, ten minutes.

Weights are random, which changes nothing of speed but the lengths of responses: these run to their limit. Each part is
a process of its own, so that none finds memory that another holds, and each figure is a ratio against the bare library
in the same run. ``--device cpu --tiny`` runs the same steps on a laptop, to see that they work.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIDE, TINY_SIDE = 448, 64
SECONDS = 240
"""One part may take so long."""


def parts(model: Path, device: str, *, tiny: bool) -> dict[str, list[str]]:
    """The arguments of each benchmark: few rounds of large batches, as a GPU is used."""
    side = str(TINY_SIDE if tiny else SIDE)
    common = ["--model", str(model), "--device", device, "--side", side]
    if tiny:
        return {
            "vllm": ["--prompts", "4", "--rounds", "1", "--samples", "4", *common],
            "training": ["--rows", "16", "--repeats", "1", "--batch", "8", *common],
            "scoring": ["--queries", "2", "--rows", "8", "--repeats", "1", *common],
        }
    return {
        "vllm": ["--prompts", "64", "--rounds", "3", "--samples", "16", *common],
        "training": ["--rows", "64", "--repeats", "2", "--batch", "8", *common],
        "scoring": ["--queries", "16", "--rows", "64", "--answer", "200", *common],
    }


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """What one benchmark prints, or why it has nothing to print."""
    if name == "vllm" and importlib.util.find_spec("vllm") is None:
        return {"benchmark": name, "missing": "vLLM is not installed"}
    command = [sys.executable, "-W", "ignore", "-m", f"bench.{name}", *arguments]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except subprocess.TimeoutExpired:
        return {"benchmark": name, "missing": f"not done in {SECONDS} s"}
    except subprocess.CalledProcessError as error:
        last = [line for line in error.stderr.splitlines() if line.strip()][-3:]
        return {"benchmark": name, "missing": " | ".join(last)}
    text = done.stdout[done.stdout.index("{") :]  # libraries may greet first
    return {**json.loads(text), "seconds": round(time.perf_counter() - start)}


def device_name(device: str) -> str:
    """The device in words."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the demo's sizes in place of 2B's")
    asked = parser.parse_args()
    from bench.sized import build

    with tempfile.TemporaryDirectory(prefix="mstar-bench-") as scratch:
        model = Path(scratch) / "model"
        side = TINY_SIDE if asked.tiny else SIDE
        count = build(model, side=side, full=not asked.tiny, device=asked.device)
        arguments = parts(model, asked.device, tiny=asked.tiny)
        found = {name: run(name, given) for name, given in arguments.items()}
    body = {"device": device_name(asked.device), "parameters": count, "image": side, **found}
    print(json.dumps(body, indent=2))


if __name__ == "__main__":
    main()
