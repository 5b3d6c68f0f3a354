"""What becomes of an engine that fails: an error that says what to change, or one that has the work tried elsewhere."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from mstar.errors import ModelError, MstarError, OutOfMemory, WorkerLost
from mstar.execution import Execution
from mstar.stages.backends.vllm_engine import Fault

LAST_CHARS = 400

_MEMORY = re.compile(
    r"out of memory|OutOfMemory|_STATUS_ALLOC_FAILED|MemoryError|bad_alloc|[Cc]an(?:no|')t allocate memory"
    r"|No available memory for the cache|larger than the available KV cache|is less than desired",
)
_ERROR = re.compile(
    r"\b\w*(?:Error|Exception|Interrupt): .*\S|Worker proc \S+ died unexpectedly \(exit code: [^)]*\)"
)
_HIDING = re.compile(
    r"Engine core initialization failed|EngineDead|EngineCore encountered an issue|WorkerProc initialization failed"
    r"|^cancelled$|Executor failed"
)
"""What vLLM says of its further processes: that one failed, and not why."""


def explain(
    fault: Fault, said: Sequence[str], model: Path, context: int, execution: Execution
) -> MstarError:
    """The error for a person. ``said`` are the last lines that the engine's process left."""
    reason = fault.reason
    if _HIDING.search(reason):
        reason = cause(said) or reason
    if fault.phase != "prompt" and (memory := _memory(reason, said)):
        return _out_of_memory(fault, memory, model, context, execution)
    if fault.phase == "start":
        return ModelError(f"vLLM does not run the model in {model}: {reason}. {_OTHERWISE}")
    if fault.phase == "prompt":
        return ModelError(
            f"query {fault.query_id}: vLLM refuses it for the model in {model}: {reason}. {_OTHERWISE}"
        )
    return WorkerLost(f"vLLM failed while it ran the model in {model}: {reason}")


def lost(
    code: int | None, said: Sequence[str], model: Path, context: int, execution: Execution
) -> MstarError:
    """The error for an engine's process that ended, with exit ``code``, without a word of its own."""
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (without a cause here that usually means that the machine's memory ran out)"
    else:
        how = f"ended with code {code}"
        if memory := _memory("", said):
            return _out_of_memory(Fault("run", memory), memory, model, context, execution)
    words = cause(said) or next((line for line in reversed(said) if line.strip()), "nothing")
    return WorkerLost(
        f"the vLLM process for the model in {model} {how}; the last it said: {words.strip()[-LAST_CHARS:]}"
    )


def cause(said: Sequence[str]) -> str:
    """The first error in what was said that is not one about another's, or nothing: what follows it, it has caused."""
    for line in said:
        found = _ERROR.search(line)
        if found and not _HIDING.search(line):
            return found[0][:LAST_CHARS]
    return ""


def _memory(reason: str, said: Sequence[str]) -> str:
    """Why memory ran out, if that is what happened."""
    if _MEMORY.search(reason):
        return reason
    line = next((line for line in said if _MEMORY.search(line) and _ERROR.search(line)), "")
    found = _ERROR.search(line)
    return found[0][:LAST_CHARS] if found else ""


_OTHERWISE = "Set execution.engine to transformers, or install a vLLM that supports the model."


def _out_of_memory(
    fault: Fault, reason: str, model: Path, context: int, execution: Execution
) -> OutOfMemory:
    doing = "starting" if fault.phase == "start" else "running"
    return OutOfMemory(
        f"out of memory while vLLM was {doing} the model in {model}: {reason}. Lower execution.sampling_rows "
        f"({execution.sampling_rows}), the task's max_new_tokens or execution.max_pixels ({execution.max_pixels}; rows "
        f"have up to {context} tokens); leave vLLM another part of the GPU by execution.vllm.gpu_share "
        f"({execution.vllm.gpu_share}); or split the model over more GPUs by execution.vllm.tensor_parallel "
        f"({execution.vllm.tensor_parallel})."
    )
