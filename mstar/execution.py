"""How a step runs: what is no part of its identity, so that a step is adopted however it was run."""

from typing import Literal

from pydantic import Field

from mstar.tasks import Record


class DeepSpeed(Record):
    """Train under DeepSpeed: ``processes`` ranks on each machine that takes part, ZeRO stage 0 to 3."""

    zero_stage: int = Field(1, ge=0, le=3)
    processes: int = Field(1, ge=1)


class Vllm(Record):
    """How vLLM uses the GPUs: each engine takes ``tensor_parallel`` of them, and ``gpu_share`` of their memory.

    ``processes`` engines work side by side, each a process of its own (None: as many as the GPUs here make; one on a
    CPU).
    """

    tensor_parallel: int = Field(1, ge=1)
    processes: int | None = Field(None, ge=1)
    gpu_share: float = Field(0.9, gt=0, le=1)


class Execution(Record):
    """How a step runs; changes speed, never what is computed beyond rounding (an engine: beyond its own draws).

    A train step leaves a checkpoint inside itself every ``checkpoint_seconds`` (None: only when it is asked to stop).
    """

    engine: Literal["transformers", "vllm"] = "transformers"
    vllm: Vllm = Vllm()
    sampling_rows: int = Field(512, ge=1)
    scoring_rows: int = Field(256, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    shards: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    deepspeed: DeepSpeed | None = None
    checkpoint_seconds: float | None = Field(600, gt=0)
    max_pixels: int = Field(12_845_056, ge=1)
