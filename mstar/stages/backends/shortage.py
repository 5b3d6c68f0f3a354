"""Out of memory, told as one message: which settings to lower, the one that helps most first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from mstar.errors import OutOfMemory
from mstar.execution import Execution
from mstar.optimization import Optimization

SAID = ("out of memory", "_STATUS_ALLOC_FAILED", "DefaultCPUAllocator", "not enough memory")
"""What torch says in a plain ``RuntimeError`` when a CPU, MPS or a CUDA library gets no memory."""

CHARS = 200


@contextmanager
def named_shortage(work: str, lower: Sequence[str]) -> Iterator[None]:
    """Raise ``OutOfMemory`` for a shortage during ``work``, naming the settings to ``lower`` in their order."""
    try:
        yield
    except Exception as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        said = (str(shortage).strip() or type(shortage).__name__).splitlines()[0][:CHARS]
        advice = "; ".join((*lower, "a device with more memory"))
        raise OutOfMemory(
            f"out of memory while {work} ({said}). What helps, the most effective first: {advice}. What "
            "begins with execution changes no result beyond rounding: what is committed, and checkpoints inside the "
            "step, stay in use."
        ) from error


def to_train(execution: Execution, optimization: Optimization) -> list[str]:
    """What needs less memory in training than ``execution`` does."""
    ranks = execution.deepspeed.processes if execution.deepspeed else 1
    rows = execution.micro_batch or max(1, optimization.batch_size // ranks)
    named = (
        [f"execution.micro_batch: {max(1, rows // 2)} (now {rows} rows at once)"]
        if rows > 1
        else []
    )
    if not execution.gradient_checkpointing:
        named.append("execution.gradient_checkpointing: true")
    found = execution.deepspeed
    if found is None:
        named.append(
            "execution.deepspeed: {zero_stage: 2, processes: <devices>, offload: optimizer}"
        )
    else:
        if found.zero_stage < 3:
            named.append(f"execution.deepspeed.zero_stage: {found.zero_stage + 1}")
        if found.zero_stage > 0 and found.offload == "none":
            named.append("execution.deepspeed.offload: optimizer")
        if found.zero_stage == 3 and found.offload != "parameters":
            named.append("execution.deepspeed.offload: parameters")
    return [*named, _pixels(execution)]


def to_score(execution: Execution) -> list[str]:
    """What needs less memory in scoring than ``execution`` does."""
    return [*_fewer("scoring_rows", execution.scoring_rows), _pixels(execution)]


def to_sample(execution: Execution) -> list[str]:
    """What needs less memory in sampling than ``execution`` does."""
    rows = _fewer("sampling_rows", execution.sampling_rows)
    return [*rows, "a lower max_new_tokens (this changes the result)", _pixels(execution)]


def to_load(execution: Execution) -> list[str]:
    """What helps when not even the weights fit: other processes on the device, or another device."""
    other = [] if execution.device == "cpu" else ["end what else runs on the device"]
    return [*other, "a smaller model"]


def _fewer(name: str, rows: int) -> list[str]:
    return [f"execution.{name}: {rows // 2} (now {rows})"] if rows > 1 else []


def _pixels(execution: Execution) -> str:
    return (
        f"smaller images (execution.max_pixels is {execution.max_pixels}; larger ones are refused)"
    )


def _shortage(error: BaseException | None) -> BaseException | None:
    """The shortage that an error is, or is told of by another."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return error
        if isinstance(error, RuntimeError) and any(words in str(error) for words in SAID):
            return error
        error = error.__cause__
    return None
