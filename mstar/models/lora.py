"""Low-rank adapters (LoRA, arXiv 2106.09685) on a loaded model: put in, merged for saving, stored and taken up again.

What is saved for others to load is always the weights that training began with plus the adapters, computed anew in
float32: nothing is ever merged on top of a merge. ``trainer/adapter`` of a checkpoint is in peft's own format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mstar.errors import MissingDependency, ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from mstar.models.family import Family, Group
    from mstar.optimization import Lora

NAME = "default"
"""What peft calls the one adapter."""

WEIGHTS_FILE = "adapter_model.safetensors"
REST_FILE = "trained_in_full.safetensors"
"""What is trained beside the adapters: a PRM's head."""

PEFT_PREFIX = "base_model.model."
"""Before the name of each tensor in peft's files."""


def attach(
    model: PreTrainedModel, family: Family, lora: Lora, *, freeze: Collection[Group], seed: int
) -> None:
    """Freeze the model and give its targets adapters, which add nothing yet: one factor is drawn, the other is zero.

    The draw follows from ``seed`` alone: every rank makes the same. ``ModelError`` when there is nothing to adapt.
    """
    try:
        from peft import inject_adapter_in_model
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise MissingDependency(
            "optimization.lora is set, but the package peft is not installed. Install mstar[train], or leave lora out "
            "to train every weight."
        ) from None
    targets = target_names(model, family, lora, freeze)
    for parameter in model.parameters():
        parameter.requires_grad = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        inject_adapter_in_model(_config(lora, targets), model, NAME)
    for name, parameter in model.named_parameters():
        if _is_adapter(name):
            # In the base's bfloat16 an update of 1e-6 would be lost; who wants it lower casts all of it.
            parameter.data = parameter.data.float()


def target_names(
    model: PreTrainedModel, family: Family, lora: Lora, freeze: Collection[Group]
) -> list[str]:
    """The full names of the linear layers that get an adapter."""
    frozen = {id(p) for group in freeze for p in family.parameters(model, group)}
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in frozen
    }
    if lora.targets is None:
        language = {id(p) for p in family.parameters(model, "language")}
        found = [name for name, module in linear.items() if id(module.weight) in language]
        if not found:
            raise ModelError(
                f"lora finds nothing to adapt in {family.path}: no linear layer of the language model is left that "
                f"freeze ({', '.join(freeze)}) does not name. Leave language out of it, or name lora.targets."
            )
        return found
    matches = {end: [n for n in linear if f".{n}".endswith(f".{end}")] for end in lora.targets}
    if missed := [end for end, names in matches.items() if not names]:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise ModelError(
            f"lora.targets names {', '.join(missed)}, but no linear layer of {family.path} that is not frozen is "
            f"called so; there are {', '.join(known)}."
        )
    found = sorted({name for names in matches.values() for name in names})
    embeddings = {id(p) for p in family.parameters(model, "embeddings")}
    if tied := [name for name in found if id(linear[name].weight) in embeddings]:
        raise ModelError(
            f"lora.targets names {', '.join(tied)}, which holds the embeddings or the output head; adapters are for "
            "the layers between them."
        )
    return found


def adapter_part(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of a model's weights those of its adapters."""
    return {name: tensor for name, tensor in weights.items() if _is_adapter(name)}


def merge(weights: Mapping[str, torch.Tensor], lora: Lora) -> dict[str, torch.Tensor]:
    """The weights that the model would have without adapters if it had learned what they learned, by its own names.

    Each keeps the number format of the frozen weight. Names may have anything in front.
    """
    merged: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if _is_adapter(name):
            continue
        stem, found, rest = name.rpartition(".base_layer.")
        if found and rest == "weight":
            down = weights[f"{stem}.lora_A.{NAME}.weight"].float()
            up = weights[f"{stem}.lora_B.{NAME}.weight"].float()
            learned = (up @ down) * (lora.alpha / lora.rank)
            merged[f"{stem}.weight"] = (tensor.float() + learned).to(tensor.dtype).cpu()
        else:
            merged[f"{stem}.{rest}" if found else name] = tensor
    return merged


def save_adapter(
    weights: Mapping[str, torch.Tensor], rest: Mapping[str, torch.Tensor], lora: Lora, folder: Path
) -> None:
    """Write adapters (by the model's own names) as peft does, and what was trained in full beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {_peft_name(name): tensor.cpu().contiguous() for name, tensor in weights.items()}
    save_file(stored, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    layers = sorted({name.partition(".lora_")[0] for name in weights})
    _config(lora, layers).save_pretrained(str(folder))
    if rest:
        full = {name: tensor.cpu().contiguous() for name, tensor in rest.items()}
        save_file(full, folder / REST_FILE, metadata={"format": "pt"})


def load_adapter(model: PreTrainedModel, module: torch.nn.Module, folder: Path) -> None:
    """Take over what ``save_adapter`` wrote: adapters into ``model``, the rest into ``module`` (which holds it)."""
    try:
        stored = load_file(folder / WEIGHTS_FILE)
        rest = load_file(folder / REST_FILE) if (folder / REST_FILE).is_file() else {}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the adapters in {folder} cannot be read: {error}") from error
    own = {name: p for name, p in model.named_parameters() if _is_adapter(name)}
    expected = {_peft_name(name): parameter for name, parameter in own.items()}
    differing = sorted(stored.keys() ^ expected.keys())
    if differing:
        raise ModelError(
            f"the adapters in {folder} are not those of this model: {len(differing)} tensors are on one side only, "
            f"among them {differing[0]}. Train with the lora.targets and freeze that they were made with."
        )
    others = dict(module.named_parameters())
    with torch.no_grad():
        for name, tensor in stored.items():
            expected[name].copy_(tensor)
        for name, tensor in rest.items():
            others[name].copy_(tensor)


def _config(lora: Lora, targets: list[str]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        bias="none",
    )


def _is_adapter(name: str) -> bool:
    return f".lora_A.{NAME}." in name or f".lora_B.{NAME}." in name


def _peft_name(name: str) -> str:
    return PEFT_PREFIX + name.replace(f".{NAME}.", ".")
