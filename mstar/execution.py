"""How a step runs: what is no part of its identity, so that a step is adopted however it was run."""

from typing import Literal, Self

from pydantic import Field, model_validator

from mstar.optimization import Optimization
from mstar.record import Record


class DeepSpeed(Record):
    """Train under DeepSpeed: ``processes`` ranks on each machine that takes part, ZeRO stage 0 to 3.

    ``offload`` keeps what a rank owns of the optimizer in host memory (from stage 1), or of the weights as well (stage
    3): less memory on the device, slower steps.
    """

    zero_stage: int = Field(1, ge=0, le=3)
    processes: int = Field(1, ge=1)
    offload: Literal["none", "optimizer", "parameters"] = "none"

    @model_validator(mode="after")
    def _stage_can_offload(self) -> Self:
        least = {"none": 0, "optimizer": 1, "parameters": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(
                f"offload {self.offload} needs zero_stage {least}{'' if least == 3 else ' or higher'}, but it is "
                f"{self.zero_stage}: a lower stage gives no rank a part of its own to move"
            )
        return self


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

    A train step leaves a checkpoint inside itself every ``checkpoint_seconds`` (None: only when it is asked to stop),
    holds ``micro_batch`` rows of a batch at a time on each rank (None: all), computes activations again in the backward
    pass under ``gradient_checkpointing``, and attends by ``attention``. ``remote_code`` allows a model folder's own
    Python code to run, which some models are made of: read it first.
    """

    engine: Literal["transformers", "vllm"] = "transformers"
    vllm: Vllm = Vllm()
    sampling_rows: int = Field(512, ge=1)
    scoring_rows: int = Field(256, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    gradient_checkpointing: bool = False
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    shards: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    deepspeed: DeepSpeed | None = None
    checkpoint_seconds: float | None = Field(600, gt=0)
    max_pixels: int = Field(12_845_056, ge=1)
    remote_code: bool = False


def refusal(execution: Execution, optimization: Optimization) -> str | None:
    """Why a step cannot be trained so, None when it can.

    DeepSpeed's stage 0 in bfloat16 does not learn what the other stages learn: measured, its loss is off by a percent
    after one step.
    """
    asked = execution.deepspeed
    if asked and asked.zero_stage == 0 and optimization.dtype == "bfloat16":
        return (
            "execution.deepspeed.zero_stage is 0, which does not train as it should in bfloat16; set zero_stage to 1 "
            "or higher, or optimization.dtype to float32"
        )
    return None
