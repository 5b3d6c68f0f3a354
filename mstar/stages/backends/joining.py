"""How a process joins the ranks of a training step: accelerate, and what DeepSpeed is told."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from accelerate import Accelerator, DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs
from accelerate.state import AcceleratorState

from mstar.errors import ModelError
from mstar.execution import DeepSpeed, Execution, refusal
from mstar.optimization import Optimization
from mstar.stages.backends.runtime import choose_device

SILENCE = timedelta(hours=1)
"""How long ranks wait for each other before they give up: also while others store a checkpoint inside the step, or
one fetches the checkpoint that all go on from."""


def open_accelerator(execution: Execution, optimization: Optimization) -> Accelerator:
    """Join this process to the other ranks that torchrun started; without DeepSpeed there are none."""
    # accelerate keeps its settings for the life of a process; another step in it may ask for others.
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 (accelerate's own tests do the same)
    on_cpu = choose_device(execution).type == "cpu"
    precision = "bf16" if optimization.dtype == "bfloat16" else "no"
    if execution.deepspeed is None:
        return Accelerator(
            cpu=on_cpu, mixed_precision=precision, step_scheduler_with_optimizer=False
        )
    if why := refusal(execution, optimization):
        raise ModelError(why)
    config = _deepspeed_config(execution.deepspeed, optimization, on_cpu=on_cpu)
    # With cpu=True accelerate would leave DeepSpeed out without a word, and without a named backend it
    # would take each rank for a lone process.
    group = InitProcessGroupKwargs(backend="gloo" if on_cpu else "nccl", timeout=SILENCE)
    accelerator = Accelerator(
        mixed_precision=precision,
        deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config),
        kwargs_handlers=[group],
        step_scheduler_with_optimizer=False,
    )
    assert accelerator.distributed_type == DistributedType.DEEPSPEED
    assert accelerator.num_processes == int(os.environ["WORLD_SIZE"])
    return accelerator


def zero_stage(accelerator: Accelerator) -> int | None:
    """ZeRO stage, None without DeepSpeed."""
    plugin = accelerator.state.deepspeed_plugin
    return None if plugin is None else int(plugin.zero_stage)


def offloads(accelerator: Accelerator) -> bool:
    """Whether the optimizer's state lies in host memory though training does not."""
    if accelerator.state.deepspeed_plugin is None:
        return False
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    return "offload_optimizer" in config["zero_optimization"]


def _deepspeed_config(
    asked: DeepSpeed, optimization: Optimization, *, on_cpu: bool
) -> dict[str, Any]:
    half = optimization.dtype == "bfloat16"
    zero: dict[str, Any] = {
        "stage": asked.zero_stage,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    host = {"device": "cpu", "pin_memory": not on_cpu}
    if asked.offload != "none":
        zero["offload_optimizer"] = host
    if asked.offload == "parameters":
        zero["offload_param"] = host
    config: dict[str, Any] = {
        # Batches vary in size and are normalised by the trainer, so DeepSpeed is told of batches of one.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimization.clip,
        "zero_optimization": zero,
        # Its own Adam for the host is compiled at the first use, and accelerate gives it none of our betas.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": half},
        "steps_per_print": 1 << 30,
    }
    if half and asked.zero_stage > 0:
        # A sum of many micro-batches in bfloat16 would lose the last of them.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
