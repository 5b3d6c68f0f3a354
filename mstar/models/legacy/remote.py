"""A folder with code of its own becomes a configuration, a processor or a module; nothing is ever downloaded.

``load_family`` comes here only when the user has allowed it. Code is taken from the folder alone: an ``auto_map`` that
names another repository is refused, because it would be fetched and run unread.
"""

from __future__ import annotations

import inspect
import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.utils import logging as hf_logging

from mstar.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

TRUSTED: dict[str, Any] = {"local_files_only": True, "trust_remote_code": True}
WRITTEN_FOR = "4.48"
"""The last transformers that the three models' published code runs under."""

WEIGHTS = (
    *("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.onnx", "*.h5", "*.msgpack"),
    *("*.safetensors.index.json", "*.bin.index.json", "prm.json"),
)
"""Files of a model folder that belong to its weights, and not to how the model is read."""


def load_config(path: Path) -> Any:
    """The folder's configuration, an instance of the folder's own class."""
    _check_own_code(path)
    with explained(path, "read the configuration"):
        return AutoConfig.from_pretrained(path, **TRUSTED)


def load_model(
    path: Path, config: Any, *, dtype: torch.dtype, device: torch.device, **options: Any
) -> Any:
    """The folder's model in evaluation mode, every weight read from its files; ``options`` go to from_pretrained."""
    hf_logging.disable_progress_bar()
    loader = AutoModelForCausalLM if "AutoModelForCausalLM" in config.auto_map else AutoModel
    with explained(path, "load the weights"):
        model, report = loader.from_pretrained(
            path,
            config=config,
            output_loading_info=True,
            **{_dtype_name(): dtype},
            **TRUSTED,
            **options,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"the weights in {path} lack {len(missing)} tensors that its code asks for, among them {missing[0]!r}. "
            "The folder is incomplete or its config belongs to another model."
        )
    return model.to(device).eval()


def load_attribute(path: Path, name: str) -> Any:
    """``module.attribute`` of the folder's code: a class or a function."""
    with explained(path, f"find {name}"):
        return get_class_from_dynamic_module(name, str(path), local_files_only=True)


def copy_description(source: Path, folder: Path) -> None:
    """Copy everything of a model folder but its weights: code, configuration, tokenizer, processor, licence.

    Byte for byte, because remote processors do not all write what they read. What ``folder`` has already stays.
    """
    for file in sorted(source.rglob("*")):
        below = file.relative_to(source)
        hidden = any(part.startswith((".", "__pycache__")) for part in below.parts)
        if hidden or not file.is_file() or any(below.match(name) for name in WEIGHTS):
            continue
        target = folder / below
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the folder's code raises into a ``ModelError`` that says under which transformers it did."""
    try:
        yield
    except (MemoryError, ModelError):
        raise
    except Exception as error:
        advice = "" if transformers.__version__.startswith(WRITTEN_FOR) else _ADVICE
        raise ModelError(
            f"the code in {path} could not {what} under transformers {transformers.__version__} "
            f"({type(error).__name__}: {error}).{advice}"
        ) from error


_ADVICE = f" It was written for transformers {WRITTEN_FOR}: run this stage in the legacy image (docs/legacy-models.md)."


def _check_own_code(path: Path) -> None:
    """Refuse an ``auto_map`` that is absent or leads out of the folder."""
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        file = path / name
        mapped = json.loads(file.read_bytes()).get("auto_map") if file.is_file() else None
        if name == "config.json" and not mapped:
            raise ModelError(
                f"{file} has no auto_map, so it does not say which code in the folder makes the model. Give the "
                "folder as it was published, with its *.py files."
            )
        for entry in _entries(mapped):
            if "--" in entry:
                repository = entry.partition("--")[0]
                raise ModelError(
                    f"auto_map in {file} takes code from {repository!r}, not from the folder, and nothing is "
                    f"downloaded. Put that repository's *.py files into {path} and remove '{repository}--' there."
                )
            module = entry.partition(".")[0]
            if not (path / f"{module}.py").is_file():
                raise ModelError(
                    f"auto_map in {file} names {entry}, and {path} has no {module}.py. Give the folder as it was "
                    "published, with its *.py files."
                )


def _entries(mapped: Any) -> Iterator[str]:
    for value in mapped.values() if isinstance(mapped, dict) else ():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str):
                yield entry


def _dtype_name() -> str:
    """What from_pretrained calls the number format; it was renamed on the way to transformers 5."""
    major = int(transformers.__version__.partition(".")[0])
    named = "dtype" in inspect.signature(PreTrainedModel.from_pretrained).parameters
    return "dtype" if major >= 5 or named else "torch_dtype"
