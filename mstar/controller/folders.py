"""What a model folder tells in milliseconds: what a step would find out only when a run has come to it.

No weights, no torch, no transformers: configuration, tokenizer and the weights' headers are JSON. Whatever is not
there, or is not written as most do, says nothing here; a folder that is refused would be refused by a step.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mstar.config import Prompts, RunSpec
from mstar.errors import ModelError, SpecError
from mstar.optimization import Optimization
from mstar.storage.tensors import Header, read_header, read_object

IMAGE_TOKENS = (
    *("image_token_id", "image_token_index", "video_token_id", "video_token_index"),
    *("vision_start_token_id", "vision_end_token_id", "boi_token_index", "eoi_token_index"),
)
"""Where a configuration names tokens that only an image or a video brings into a prompt."""


class ModelFolder:
    """A model's folder, whole. ``ModelError`` unless it is what save_pretrained writes and fits itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_files(path)
        headers = [_whole(file) for file in _weights(path)]
        self.shapes = {name: shape for each in headers for name, shape in each.shapes.items()}
        self.config = read_object(path / "config.json")
        self.tokens = list(_tokens(path / "tokenizer.json"))
        self._check_vocabulary()

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The language model's part of the configuration."""
        parts = (self.config.get(key) for key in ("text_config", "llm_config"))
        return next((part for part in parts if isinstance(part, Mapping)), self.config)

    @property
    def context(self) -> int | None:
        """How many tokens prompt and response may have together, where the configuration says so."""
        # Longer rows would change what the others of a batch mean.
        found = self.config.get("model_type") == "phi3_v" and self.config.get(
            "original_max_position_embeddings"
        )
        found = found or self.text_config.get("max_position_embeddings")
        return found if isinstance(found, int) and found > 0 else None

    @property
    def image_words(self) -> list[str]:
        """Tokens that only an image or a video brings into a prompt."""
        numbers = [self.config[name] for name in IMAGE_TOKENS if name in self.config]
        return [token for token, number in self.tokens if token and number in numbers]

    @property
    def layers(self) -> set[str]:
        """The last parts of the names of what has a matrix; what stands before differs between loaded and stored."""
        names = [name for name, shape in self.shapes.items() if len(shape) == 2]
        return {name.split(".")[-2] for name in names if name.endswith(".weight") and "." in name}

    def _check_vocabulary(self) -> None:
        rows = self.text_config.get("vocab_size")
        known = len({token for token, _ in self.tokens})
        if isinstance(rows, int) and known > rows:
            raise ModelError(
                f"the tokenizer in {self.path} knows {known} tokens and the model embeds {rows}: one of them is "
                "another model's. Take tokenizer and weights from one place."
            )


def check_models(spec: RunSpec) -> None:
    """``ModelError`` unless the models of a spec are whole, ``SpecError`` unless they can do what the spec asks."""
    own = ModelFolder(Path(spec.model))
    _check_targets(own, "evolve", spec.evolve.optimization)
    _check_context(own, "evolve.rollout", spec.evolve.rollout.max_new_tokens)
    if files := spec.evaluation.benchmarks:
        _check_context(own, "evaluation.benchmarks", files.max_new_tokens)
    _check_prompts(own, spec.prompts)
    teacher = ModelFolder(Path(spec.teacher)) if spec.teacher else own
    _check_prompts(teacher, spec.prompts)
    if spec.evolve.how.learns_from == "answers":
        return
    if spec.warm_up:
        for model in (own, teacher):
            _check_targets(model, "warm_up", spec.warm_up.optimization)
        _check_context(teacher, "warm_up.rollout", spec.warm_up.rollout.max_new_tokens)
    if spec.prm and spec.evolve.needs_prm:
        _check_targets(teacher, "prm", spec.prm.optimization)
        _check_context(teacher, "prm.rollout", spec.prm.rollout.max_new_tokens)


def _check_targets(model: ModelFolder, key: str, optimization: Optimization) -> None:
    ends = (optimization.lora and optimization.lora.targets) or ()
    missed = [end for end in ends if end.split(".")[-1] not in model.layers]
    if missed:
        raise SpecError(
            f"{key}.optimization.lora.targets names {', '.join(missed)}, but no layer of the model in {model.path} is "
            f"called so; there are {', '.join(sorted(model.layers))}"
        )


def _check_context(model: ModelFolder, key: str, limit: int) -> None:
    if model.context and limit >= model.context:
        raise SpecError(
            f"{key}.max_new_tokens is {limit}, which leaves no room for a prompt: the model in {model.path} has a "
            f"context of {model.context} for both. Lower it."
        )


def _check_prompts(model: ModelFolder, prompts: Prompts) -> None:
    for key in ("query", "hinted", "option", "options_before", "options_between"):
        text: str = getattr(prompts, key)
        if found := next((word for word in model.image_words if word in text), None):
            raise SpecError(
                f"prompts.{key} holds {found!r}, which stands for an image to the model in {model.path}. Remove it: "
                "the image is placed before the text by the chat template."
            )


def _check_files(folder: Path) -> None:
    expected = "expected a folder with config.json, *.safetensors and the processor's files"
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}; {expected}")
    if not (folder / "config.json").is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise ModelError(
            f"{folder} is not a model folder: no config.json; {expected}, found {found}"
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no weights (*.safetensors); {expected}")
    if not any(
        (folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")
    ):
        raise ModelError(f"{folder} has no processor (processor_config.json); {expected}")


def _whole(file: Path) -> Header:
    header, size = read_header(file), file.stat().st_size
    if size != header.bytes:
        raise ModelError(
            f"{file} has {size:,} bytes, and should have {header.bytes:,} by its own header; copy the model's folder "
            "again"
        )
    return header


def _weights(folder: Path) -> list[Path]:
    """The files that hold the weights: the one of the usual name, else all that the index names, else all there are."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    weights = read_object(index).get("weight_map")
    names = sorted(set(map(str, weights.values()))) if isinstance(weights, Mapping) else []
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of the {len(names)} files of weights that {index.name} names, "
            f"among them {missing[0]}; copy the model's folder again"
        )
    return [folder / name for name in names]


def _tokens(file: Path) -> Iterator[tuple[str, int]]:
    """The tokens of a tokenizer that is written as one file, with their numbers; nothing of any other."""
    if not file.is_file():
        return
    found = read_object(file)
    model, added = found.get("model"), found.get("added_tokens")
    words = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(words, Mapping):
        yield from words.items()
    for token in added if isinstance(added, list) else ():
        if isinstance(token, Mapping) and isinstance(token.get("id"), int):
            yield str(token.get("content")), token["id"]
