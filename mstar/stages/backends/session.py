"""A model, its optimizer and its schedule, prepared by accelerate: opened, stepped, loaded and saved."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from accelerate import Accelerator

from mstar.core.schedule import rate_share
from mstar.errors import ModelError
from mstar.execution import Execution
from mstar.models.family import Family
from mstar.models.lora import adapter_part, attach, load_adapter, merge, save_adapter
from mstar.models.prm import load_reward_model, save_head
from mstar.optimization import Optimization
from mstar.stages.backends.attending import attend_as_asked
from mstar.stages.backends.checkpoint import TrainerState, library_versions, write_state
from mstar.stages.backends.joining import offloads, zero_stage
from mstar.stages.backends.objectives import PolicyLoss, StepValueLoss
from mstar.stages.backends.ranks import is_first

log = logging.getLogger(__name__)


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
        self.lora = optimization.lora
        self.trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.trained,
            lr=optimization.learning_rate,
            betas=optimization.betas,
            weight_decay=optimization.weight_decay,
            # One kernel for all parameters. DeepSpeed steps on its own flat copies of them, and it pays to fuse what
            # is done to each only where they lie in host memory.
            fused=accelerator.device.type in {"cpu", "cuda"}
            and (not self.deepspeed or offloads(accelerator)),
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
        if self.deepspeed and not self.lora:
            # DeepSpeed's optimizer holds the weights it steps: they must be the ones this session began with.
            check_same_weights(self.family.path, checkpoint / "model")
        # Frozen weights are none of the checkpoint's.
        how = {"load_module_strict": False} if self.deepspeed and self.lora else {}
        self.accelerator.load_state(str(checkpoint / "trainer"), **how)

    def save(self, checkpoint: Path, state: TrainerState) -> None:
        """Write ``model`` (for transformers, adapters merged in) and ``trainer`` (what ``load`` takes over)."""
        # Shared-out weights are put together by all ranks; else each would copy the whole model for nothing.
        asked = zero_stage(self.accelerator) == 3 or self.accelerator.is_main_process
        weights = self.accelerator.get_state_dict(self.module) if asked else {}
        folder = checkpoint / "model"
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            module = self.accelerator.unwrap_model(self.module)
            weights = _tie(module, weights)
            if self.lora:
                self._save_adapter(module, weights, checkpoint)
                weights = merge(weights, self.lora)
            save_model(module, weights, folder)
            self.family.save_processor(folder)
        how = {"exclude_frozen_parameters": True} if self.deepspeed and self.lora else {}
        self.accelerator.save_state(str(checkpoint / "trainer"), **how)
        if self.accelerator.is_main_process:
            state = state.model_copy(update={"versions": library_versions()})
            write_state(checkpoint / "trainer", state)
        self.accelerator.wait_for_everyone()

    def _save_adapter(
        self,
        module: PolicyLoss | StepValueLoss,
        weights: Mapping[str, torch.Tensor],
        checkpoint: Path,
    ) -> None:
        assert self.lora is not None
        adapters = _under(_prefix(module), adapter_part(weights))
        held = {name for name, p in module.named_parameters() if p.requires_grad}
        rest = {name: weights[name] for name in held - adapter_part(weights).keys()}
        save_adapter(adapters, rest, self.lora, checkpoint / "trainer" / "adapter")


def open_session(
    objective: Literal["policy", "prm"],
    accelerator: Accelerator,
    family: Family,
    optimization: Optimization,
    *,
    execution: Execution,
    seed: int,
    checkpoint: Path | None,
) -> Session:
    """Load the model, freeze what is asked, and hand it to accelerate.

    Adapters are drawn from ``seed``, or go on from ``checkpoint``; all else of the checkpoint is for ``Session.load``.
    """
    dtype = weights_dtype(execution, optimization)
    module = load_module(objective, family, accelerator.device, dtype)
    backbone = module.model.backbone if isinstance(module, StepValueLoss) else module.model
    if zero_stage(accelerator) == 3:
        _restore_buffers(backbone)
    _prepare_forward(backbone, execution, optimization, accelerator.device)
    if optimization.lora:
        attach(backbone, family, optimization.lora, freeze=optimization.freeze, seed=seed)
        if checkpoint and (adapter := checkpoint / "trainer" / "adapter").is_dir():
            load_adapter(backbone, module, adapter)
    else:
        for group in optimization.freeze:
            for parameter in family.parameters(backbone, group):
                parameter.requires_grad = False
        if isinstance(module, StepValueLoss):
            _freeze_unused_head(backbone)
    if execution.deepspeed and dtype != torch.float32:
        _cast_rest(module, dtype)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        frozen = " and ".join(optimization.freeze)
        raise ModelError(f"with {frozen} frozen there is nothing to train in {family.path}")
    module.train()
    return Session(accelerator, family, module, optimization)


def save_model(
    module: PolicyLoss | StepValueLoss, weights: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Write weights and configuration so that transformers alone opens the folder; a PRM's head goes beside them."""
    own = _under(_prefix(module), weights)
    if isinstance(module, PolicyLoss):
        module.model.save_pretrained(folder, state_dict=own)
    else:
        module.model.backbone.save_pretrained(folder, state_dict=own)
        save_head(_under("model.head.", weights), folder)


def weights_dtype(execution: Execution, optimization: Optimization) -> torch.dtype:
    """The number format that weights are loaded in.

    Where training in bfloat16 steps float32 copies of its own (DeepSpeed) or leaves the weights alone (adapters),
    float32 would only be twice the memory: 32 GB in place of 16 for eight billion. Else the weights are stepped.
    """
    apart = execution.deepspeed is not None or optimization.lora is not None
    return torch.bfloat16 if apart and optimization.dtype == "bfloat16" else torch.float32


def load_module(
    objective: Literal["policy", "prm"],
    family: Family,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> PolicyLoss | StepValueLoss:
    """The family's model, inside the module that gives its loss."""
    if objective == "policy":
        return PolicyLoss(family.load(dtype=dtype, device=device))
    return StepValueLoss(load_reward_model(family, dtype=dtype, device=device, fresh_head=True))


def _prepare_forward(
    backbone: Any, execution: Execution, optimization: Optimization, device: torch.device
) -> None:
    """Attention and gradient checkpointing as asked."""
    computes = torch.bfloat16 if optimization.dtype == "bfloat16" else torch.float32
    attention = attend_as_asked(backbone, execution, device, computes)
    if execution.gradient_checkpointing:
        if not backbone.supports_gradient_checkpointing:
            raise ModelError(
                f"{type(backbone).__name__} knows no gradient checkpointing; set execution.gradient_checkpointing to "
                "false"
            )
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
    if is_first():
        log.info(
            "training in %s with %s attention%s",
            optimization.dtype,
            attention,
            ", activations computed again" if execution.gradient_checkpointing else "",
        )


def _restore_buffers(backbone: Any) -> None:
    """Compute buffers in float32 again: stage 3 makes a model in the weights' format, its rotary frequencies too.

    In bfloat16 a frequency is wrong by up to 0.4 %, which turns far positions by whole radians.
    """
    rounded = False
    for module in backbone.modules():
        for name in module._non_persistent_buffers_set:  # noqa: SLF001 (no public way to ask)
            buffer = getattr(module, name)
            if buffer is not None and buffer.dtype == torch.bfloat16:
                setattr(module, name, buffer.float())
                module._is_hf_initialized = False  # noqa: SLF001 (what transformers goes by)
                rounded = True
    if not rounded:
        return
    if hasattr(backbone, "initialize_weights"):
        backbone.initialize_weights()
    else:
        log.warning(
            "under ZeRO stage 3 transformers %s leaves rotary frequencies rounded to bfloat16: prefer stage 2",
            transformers.__version__,
        )


def _cast_rest(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """What was not loaded in ``dtype`` (a PRM's head, adapters), before DeepSpeed would do it, or refuse to."""
    for parameter in module.parameters():
        if parameter.dtype != dtype and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.to(dtype)


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


def _prefix(module: PolicyLoss | StepValueLoss) -> str:
    """What stands before the names of the model's own weights."""
    return "model." if isinstance(module, PolicyLoss) else "model.backbone."


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
