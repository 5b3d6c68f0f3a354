"""A model, its optimizer and its schedule, prepared by accelerate: opened, stepped, loaded and saved."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs
from accelerate.state import AcceleratorState

from mstar.core.schedule import rate_share
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.models.family import Family
from mstar.models.prm import load_reward_model, save_head
from mstar.stages.backends.checkpoint import TrainerState, library_versions, write_state
from mstar.stages.backends.objectives import PolicyLoss, StepValueLoss
from mstar.stages.backends.runtime import choose_device
from mstar.tasks import Optimization

SILENCE = timedelta(minutes=30)
"""How long ranks wait for each other before they give up: also while others store a checkpoint inside the step."""


class Session:
    """What one training step trains with. ``module`` gives the summed loss of a batch."""

    def __init__(
        self,
        accelerator: Accelerator,
        family: Family,
        module: PolicyLoss | StepValueLoss,
        optimization: Optimization,
    ) -> None:
        self.accelerator = accelerator
        self.family = family
        self.clip = optimization.clip
        self.trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.trained,
            lr=optimization.learning_rate,
            betas=optimization.betas,
            weight_decay=optimization.weight_decay,
            # One kernel for all parameters; DeepSpeed steps on its own flat copies of them.
            fused=not self.deepspeed and accelerator.device.type in {"cpu", "cuda"},
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_share(step, optimization.warmup_steps)
        )
        self.module, self.optimizer, self.schedule = accelerator.prepare(
            module, optimizer, schedule
        )
        accelerator.register_save_state_pre_hook(_save_no_weights)
        accelerator.register_load_state_pre_hook(_load_no_weights)

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed steps the optimizer."""
        return zero_stage(self.accelerator) is not None

    @property
    def world(self) -> int:
        """Number of ranks."""
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """The number of the process among the ranks."""
        return int(self.accelerator.process_index)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the step to come."""
        return float(self.schedule.get_last_lr()[0])

    @property
    def files(self) -> tuple[str, ...]:
        """What a checkpoint's trainer folder must hold for this session to go on from it."""
        states = tuple(f"random_states_{rank}.pkl" for rank in range(self.world))
        optimizer = "pytorch_model" if self.deepspeed else "optimizer.bin"
        return ("scheduler.bin", optimizer, *states)

    def step(self) -> torch.Tensor | float | None:
        """Clip, step the optimizer and the schedule; under DeepSpeed the last backward has clipped and stepped.

        Returns the gradient's norm before clipping, where it is known.
        """
        norm: torch.Tensor | float | None = self.accelerator.clip_grad_norm_(
            self.trained, self.clip
        )
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return norm

    def load(self, checkpoint: Path) -> None:
        """Take over a checkpoint's optimizer, schedule and random state."""
        if self.deepspeed:
            # DeepSpeed's optimizer holds the weights it steps: they must be the ones this session began with.
            check_same_weights(self.family.path, checkpoint / "model")
        self.accelerator.load_state(str(checkpoint / "trainer"))

    def save(self, checkpoint: Path, state: TrainerState) -> None:
        """Write ``model`` (for transformers) and ``trainer`` (what ``load`` takes over)."""
        weights = self.accelerator.get_state_dict(self.module)
        folder = checkpoint / "model"
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            module = self.accelerator.unwrap_model(self.module)
            save_model(module, _tie(module, weights), folder)
            self.family.save_processor(folder)
        self.accelerator.save_state(str(checkpoint / "trainer"))
        if self.accelerator.is_main_process:
            state = state.model_copy(update={"versions": library_versions()})
            write_state(checkpoint / "trainer", state)
        self.accelerator.wait_for_everyone()


def open_session(
    objective: Literal["policy", "prm"],
    accelerator: Accelerator,
    family: Family,
    optimization: Optimization,
) -> Session:
    """Load the model in float32, freeze what is asked, and hand it to accelerate."""
    module = load_module(objective, family, accelerator.device)
    backbone = module.model.backbone if isinstance(module, StepValueLoss) else module.model
    for group in optimization.freeze:
        for parameter in family.parameters(backbone, group):
            parameter.requires_grad = False
    if isinstance(module, StepValueLoss):
        _freeze_unused_head(backbone)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ModelError(
            f"freeze {list(optimization.freeze)} leaves nothing to train in {family.path}"
        )
    module.train()
    return Session(accelerator, family, module, optimization)


def save_model(
    module: PolicyLoss | StepValueLoss, weights: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Write weights and configuration so that transformers alone opens the folder; a PRM's head goes beside them."""
    if isinstance(module, PolicyLoss):
        module.model.save_pretrained(folder, state_dict=_under("model.", weights))
    else:
        backbone = _under("model.backbone.", weights)
        module.model.backbone.save_pretrained(folder, state_dict=backbone)
        save_head(_under("model.head.", weights), folder)


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
    config = _deepspeed_config(execution.deepspeed.zero_stage, optimization)
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


def _deepspeed_config(zero_stage: int, optimization: Optimization) -> dict[str, Any]:
    return {
        # Batches vary in size and are normalised by the trainer, so DeepSpeed is told of batches of one.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimization.clip,
        "zero_optimization": {
            "stage": zero_stage,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": optimization.dtype == "bfloat16"},
        "steps_per_print": 1 << 30,
    }


def load_module(
    objective: Literal["policy", "prm"], family: Family, device: torch.device
) -> PolicyLoss | StepValueLoss:
    """The family's model in float32, inside the module that gives its loss."""
    if objective == "policy":
        return PolicyLoss(family.load(dtype=torch.float32, device=device))
    return StepValueLoss(
        load_reward_model(family, dtype=torch.float32, device=device, fresh_head=True)
    )


def _freeze_unused_head(backbone: Any) -> None:
    """The word head has no part in a PRM; left trainable it would wait for gradients that never come."""
    output = backbone.get_output_embeddings()
    if output is not None and output.weight is not backbone.get_input_embeddings().weight:
        output.weight.requires_grad = False


def check_same_weights(model: Path, checkpoint: Path) -> None:
    """Refuse a model that is not the checkpoint's (``ModelError``)."""
    names = sorted(path.name for path in checkpoint.glob("*.safetensors"))
    same, _, _ = filecmp.cmpfiles(model, checkpoint, names, shallow=False)
    if sorted(same) != names:
        raise ModelError(
            f"the model in {model} is not the one in {checkpoint}: with DeepSpeed an inherited optimizer brings its "
            "own weights. Train the checkpoint's model, or start with a fresh optimizer."
        )


def _tie(module: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in which tied parameters are one tensor again: DeepSpeed copies each, and would save them twice."""
    first: dict[int, str] = {}
    tied = dict(weights)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in tied:
            tied[name] = tied[first.setdefault(id(parameter), name)]
    return tied


def _under(prefix: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }


def _save_no_weights(models: list[Any], weights: list[Any], folder: str) -> None:
    """The weights are in ``model`` already."""
    del models, folder
    weights.clear()


def _load_no_weights(models: list[Any], folder: str) -> None:
    del folder
    models.clear()
