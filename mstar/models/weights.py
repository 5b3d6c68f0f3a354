"""A local model folder becomes a configuration, a processor or a module; nothing is ever downloaded.

transformers fills weights that a file lacks with random numbers and only warns; here that is an error.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as hf_logging

from mstar.errors import MissingDependency, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

_LAYER = re.compile(r"\.\d+(?=\.)")
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_config(path: Path) -> Any:
    """The folder's configuration; ``ModelError`` when transformers does not know the architecture."""
    try:
        config = AutoConfig.from_pretrained(path, **_LOCAL)
    except Exception as error:  # a configuration of another version may fail in any way
        raise ModelError(
            f"transformers cannot read the model configuration in {path} ({type(error).__name__}): {error}"
            f"{_versions(path)}"
        ) from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:  # noqa: SLF001 (the only lookup there is)
        raise ModelError(
            f"{path} holds a {config.model_type!r} model, which transformers has no image-text-to-text class for. "
            "Give a vision-language model, or add a family (CONTRIBUTING.md)."
        )
    return config


def load_processor(path: Path) -> Any:
    """The folder's processor: tokenizer, image processor and chat template."""
    try:
        processor = AutoProcessor.from_pretrained(path, **_LOCAL)
    except ImportError as error:
        raise MissingDependency(
            f"the processor in {path} needs a package that is not installed; install mstar[train] anew. {error}"
        ) from error
    except Exception as error:  # a processor of another version may fail in any way
        raise ModelError(
            f"{path} has no usable processor ({type(error).__name__}: {error}). Save it beside the weights: "
            f"processor.save_pretrained(folder).{_versions(path)}"
        ) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"{path} has a {type(processor).__name__}, not a processor of images and text. Save the whole processor "
            f"beside the weights: processor.save_pretrained(folder).{_versions(path)}"
        )
    if not processor.chat_template:
        raise ModelError(
            f"the processor in {path} has no chat template; add chat_template.jinja to the folder."
        )
    return processor


def load_weights(path: Path, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The folder's model in evaluation mode, every weight read from its files."""
    hf_logging.disable_progress_bar()
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, output_loading_info=True, **_LOCAL
        )
    except Exception as error:  # transformers and safetensors raise a dozen unrelated types here
        if isinstance(error, MemoryError):
            raise
        raise ModelError(
            f"the weights in {path} cannot be loaded ({type(error).__name__}): {error}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"the weights in {path} lack {len(missing)} tensors that its config.json asks for, among them "
            f"{missing[0]!r}. The folder is incomplete or its config belongs to another model."
        )
    layers = _further_layers(report["unexpected_keys"], model.state_dict())
    if layers:
        raise ModelError(
            f"the weights in {path} hold {len(layers)} tensors of layers that its config.json does not ask for, among "
            f"them {layers[0]!r}. Without them it would be another model: the config belongs to another one."
        )
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def _further_layers(unexpected: Iterable[str], known: Iterable[str]) -> list[str]:
    """Tensors that are left over and differ from the model's own in a layer's number alone."""
    shapes = {_LAYER.sub(".#", name) for name in known}
    return sorted(name for name in unexpected if _LAYER.sub(".#", name) in shapes)


def _versions(path: Path) -> str:
    """Who wrote a folder and who reads it, where the two differ."""
    try:
        written = json.loads((path / "config.json").read_bytes()).get("transformers_version")
    except (OSError, ValueError, AttributeError):
        return ""
    if not isinstance(written, str) or written == transformers.__version__:
        return ""
    return (
        f" (It was saved by transformers {written}, and {transformers.__version__} is installed.)"
    )
