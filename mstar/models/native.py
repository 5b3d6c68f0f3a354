"""What every architecture that transformers knows shares: prompts, batches, banned tokens, text.

A family derived from this says how one prompt's tokens and image become an ``Encoded``; the rest is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from mstar.data.images import over_limit
from mstar.errors import ModelError
from mstar.models.family import MAX_PIXELS, Asked, Encoded, Group, Side
from mstar.models.weights import load_config, load_processor, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

UNLIMITED = 1 << 30
RENDERED_KEPT = 4096

_TEXT_KEYS = ("input_ids", "attention_mask")


class NativeFamily(ABC):
    """A family whose processor and model are transformers' own classes."""

    image_limit = "the limits in preprocessor_config.json"

    def __init__(self, path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        self.config = load_config(path)
        self.processor = load_processor(path)
        self.tokenizer = self.processor.tokenizer
        self.max_pixels = max_pixels
        self.vocabulary = len(self.tokenizer)
        text = self.config.get_text_config()
        self.context = int(getattr(text, "max_position_embeddings", None) or UNLIMITED)
        check_vocabulary(path, self.vocabulary, text)
        self.eos = self._end_tokens()
        self.placeholder = self._placeholder()
        self.reserved = self._reserved_tokens()
        self.banned = self._banned_tokens()
        pad = self.tokenizer.pad_token_id
        self.pad = int(self.eos[0] if pad is None else pad)
        self._pieces: dict[int, str] = {}
        # A prompt is rendered when it is measured and when it is encoded, and a template costs more than its text.
        self.rendered = lru_cache(maxsize=RENDERED_KEPT)(self.render)

    @property
    def settings_file(self) -> str:
        """The file with the image processor's settings: its own as published, one for all since transformers 5."""
        own = "preprocessor_config.json"
        return own if (self.path / own).is_file() else "processor_config.json"

    def check(self, prompts: Sequence[Asked]) -> None:
        """Refuse images over the limits and text that holds a placeholder; takes no time."""
        for prompt in prompts:
            self._check_size(prompt)
            self._check_text(prompt)

    @abstractmethod
    def measure(self, prompts: Sequence[Asked]) -> list[tuple[int, int]]:
        """Of each prompt how many tokens it has, and how many of those stand for its image."""

    def render(self, text: str) -> str:
        """The chat prompt of one image and the user's text, up to where the model answers."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        prompt: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return prompt

    def encode(self, prompts: Sequence[Asked]) -> list[Encoded]:
        """Render and tokenise prompts; ``ModelError`` for an image the model cannot take."""
        self.check(prompts)
        return [self._encode_one(prompt) for prompt in prompts]

    def _encode_one(self, prompt: Asked) -> Encoded:
        output = self.process([prompt], return_tensors="pt")
        tokens = tuple(output["input_ids"][0].tolist())
        images: dict[str, torch.Tensor] = {}
        token_inputs: dict[str, tuple[int, ...]] = {}
        for name, value in output.items():
            if name.endswith("token_type_ids"):
                token_inputs[name] = tuple(value[0].tolist())
            elif name not in _TEXT_KEYS:
                images[name] = value
        return Encoded(
            tokens=tokens,
            images=images,
            token_inputs=token_inputs,
            next_position=len(tokens),
            image_tokens=self.count_images(prompt, tokens),
        )

    def count_images(self, prompt: Asked, tokens: Sequence[int]) -> int:
        """How many of a prompt's tokens stand for its image; ``ModelError`` when there are none."""
        found = tokens.count(self.placeholder)
        if not found:
            raise ModelError(
                f"query {prompt.query_id}: the prompt that the processor in {self.path} makes holds no image. Its chat "
                "template knows none: take chat_template.jinja from where the weights were published."
            )
        return found

    def process(self, prompts: Sequence[Asked], **options: Any) -> Mapping[str, Any]:
        """The processor's output for prompts of one image each, unpadded."""
        texts = [self.rendered(prompt.text) for prompt in prompts]
        # A list of one-image lists: some processors read a flat list as the images of a single prompt.
        images = [[prompt.image.convert("RGB")] for prompt in prompts]
        try:
            output: Mapping[str, Any] = self.processor(
                text=texts,
                images=images,
                add_special_tokens=self.adds_special_tokens(texts[0]),
                **options,
            )
        except Exception as error:  # what a processor of another version raises has no common kind
            if isinstance(error, MemoryError):
                raise
            names = ", ".join(prompt.query_id for prompt in prompts[:3])
            raise ModelError(
                f"the processor of {self.path} refuses the image or text of {names} ({type(error).__name__}): {error}"
            ) from error
        return output

    def adds_special_tokens(self, rendered: str) -> bool:
        """Whether the tokenizer puts its own first token before a prompt: not when the chat template has done so."""
        first = self.tokenizer.bos_token
        return not (first and rendered.startswith(first))

    def collate(
        self, prompts: Sequence[Encoded], answers: Sequence[Sequence[int]], *, pad: Side
    ) -> dict[str, torch.Tensor]:
        """A batch of rows ``prompt + answer`` as keyword arguments of the model's forward."""
        lengths = [
            len(prompt.tokens) + len(answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        shape = (len(prompts), max(lengths))
        starts = [shape[1] - length if pad == "left" else 0 for length in lengths]
        ids = torch.full(shape, self.pad, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        axes = () if prompts[0].positions is None else (len(prompts[0].positions),)
        positions = torch.zeros((*axes, *shape), dtype=torch.long)
        token_inputs = {
            name: torch.zeros(shape, dtype=torch.long) for name in prompts[0].token_inputs
        }
        for row, (prompt, answer, start, length) in enumerate(
            zip(prompts, answers, starts, lengths, strict=True)
        ):
            middle, end = start + len(prompt.tokens), start + length
            ids[row, start:end] = torch.tensor([*prompt.tokens, *answer])
            mask[row, start:end] = 1
            count = (
                torch.arange(len(prompt.tokens)) if prompt.positions is None else prompt.positions
            )
            positions[..., row, start:middle] = count
            positions[..., row, middle:end] = torch.arange(len(answer)) + prompt.next_position
            for name, values in prompt.token_inputs.items():
                token_inputs[name][row, start:middle] = torch.tensor(values)
        self._check_whole(ids, prompts)
        batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return batch | token_inputs | join_images(prompts)

    def load(self, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
        """Read the weights from the folder; ``ModelError`` when any are missing or unusable."""
        return load_weights(self.path, dtype=dtype, device=device)

    def parameters(self, model: PreTrainedModel, group: Group) -> list[torch.nn.Parameter]:
        """The parameters of one group, for freezing: every parameter is in one of the three.

        ``embeddings`` are those of words, with the head that predicts them; ``vision`` is what stands before the
        language model, so the layers that lead from the image's features to it, too.
        """
        language = model.get_decoder()
        if language is model:
            raise ModelError(
                f"{type(model).__name__} does not say which of its parts is the language model"
            )
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        embeddings = _by_identity(p for end in ends if end is not None for p in end.parameters())
        if group == "embeddings":
            return list(embeddings.values())
        spoken = _by_identity(language.parameters())
        if group == "language":
            return [p for key, p in spoken.items() if key not in embeddings]
        others = _by_identity(model.parameters())
        return [p for key, p in others.items() if key not in embeddings and key not in spoken]

    def tokenize(self, text: str) -> tuple[int, ...]:
        """The tokens of a response's text, without any special ones around it."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def retokenize(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that another model wrote, without banned and end tokens."""
        never = {*self.banned, *self.eos}
        return tuple(token for token in self.tokenize(text) if token not in never)

    def decode(self, tokens: Sequence[int], *, prefix: Sequence[int] = ()) -> str:
        """The text that ``tokens`` add after ``prefix``, without special tokens."""
        if not prefix:
            return self._text(tokens)
        # Some tokenizers drop a leading space: decode the whole and cut what was there before.
        head, whole = self._text(prefix), self._text([*prefix, *tokens])
        return whole[len(head) :] if whole.startswith(head) else self._text(tokens)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token alone, for splitting a response into steps."""
        known = self._pieces
        for token in tokens:
            if token not in known:
                known[token] = self._text([token])
        return [known[token] for token in tokens]

    def save_processor(self, folder: Path) -> None:
        """Write tokenizer, image processor and chat template beside saved weights."""
        self.processor.save_pretrained(folder)

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _check_size(self, prompt: Asked) -> None:
        width, height = prompt.image.size
        if width * height > self.max_pixels:
            raise ModelError(over_limit(prompt.query_id, prompt.image.size, self.max_pixels))

    def _check_text(self, prompt: Asked) -> None:
        """A placeholder in the question would take another query's image."""
        for placeholder in self.tokenizer.convert_ids_to_tokens(list(self.reserved)):
            if placeholder in prompt.text:
                raise ModelError(
                    f"the text of query {prompt.query_id} holds {placeholder!r}, which stands for an image to this "
                    "model. Remove it: the image is placed before the text by the chat template."
                )

    def _end_tokens(self) -> tuple[int, ...]:
        """The tokenizer's eos first (what training appends), then what generation_config adds."""
        found: list[int] = []
        if self.tokenizer.eos_token_id is not None:
            found.append(int(self.tokenizer.eos_token_id))
        for holder in (
            load_generation_config(self.path),
            self.config,
            self.config.get_text_config(),
        ):
            value = getattr(holder, "eos_token_id", None)
            found += [] if value is None else [value] if isinstance(value, int) else list(value)
        if not found:
            raise ModelError(
                f"the model in {self.path} names no end-of-sequence token; set eos_token in its tokenizer"
            )
        return tuple(dict.fromkeys(found))

    def _check_whole(self, ids: torch.Tensor, prompts: Sequence[Encoded]) -> None:
        """Some models take an image whose tokens were cut without a word, and give its rest to the next row."""
        found = (ids == self.placeholder).sum(dim=1).tolist()
        for row, (count, prompt) in enumerate(zip(found, prompts, strict=True)):
            if count != prompt.image_tokens:
                raise ModelError(
                    f"row {row} of a batch has {count} image tokens, and its image makes {prompt.image_tokens}: the "
                    "prompt was cut, or the response holds a placeholder. Nothing may be cut inside an image."
                )

    def _placeholder(self) -> int:
        """The token that stands for one feature of an image."""
        for name in ("image_token_id", "image_token_index"):
            found = getattr(self.config, name, None)
            if isinstance(found, int):
                return found
        raise ModelError(
            f"{self.path} has a {self.config.model_type!r} model whose config names no image token, so its prompts "
            "cannot be checked. Add a family for it (CONTRIBUTING.md)."
        )

    def _reserved_tokens(self) -> tuple[int, ...]:
        """Every token that only an image or a video brings into a prompt."""
        names = ["image_token_id", "image_token_index", "video_token_id", "video_token_index"]
        names += [
            "vision_start_token_id",
            "vision_end_token_id",
            "boi_token_index",
            "eoi_token_index",
        ]
        holders = (self.config, self.processor, self.tokenizer)
        found = {getattr(holder, name, None) for holder in holders for name in names}
        words = self.image_words()
        known = self.tokenizer.get_added_vocab()
        found.update(known[word] for word in words if word in known)
        return tuple(sorted(token for token in found if isinstance(token, int)))

    def image_words(self) -> Iterable[str]:
        """Special words that stand around an image, beyond those that configurations name."""
        return ()

    def _banned_tokens(self) -> tuple[int, ...]:
        tokenizer = self.tokenizer
        special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
        banned = {*self.reserved, *(token for token in special if token is not None)}
        # A pad token that also ends a response (Qwen's <|endoftext|>) stays allowed: it ends the response.
        return tuple(sorted(banned - set(self.eos)))


def check_vocabulary(path: Path, known: int, text: Any) -> None:
    """A tokenizer that knows more tokens than the model embeds belongs to another model."""
    rows = getattr(text, "vocab_size", None)
    if isinstance(rows, int) and known > rows:
        raise ModelError(
            f"the tokenizer in {path} knows {known} tokens and the model embeds {rows}: one of them is another "
            "model's. Take tokenizer and weights from one place."
        )


def _by_identity(parameters: Iterable[torch.nn.Parameter]) -> dict[int, torch.nn.Parameter]:
    return {id(parameter): parameter for parameter in parameters}


def load_generation_config(path: Path) -> Any:
    """The folder's generation settings, None when it has none."""
    from transformers import GenerationConfig

    if not (path / "generation_config.json").is_file():
        return None
    return GenerationConfig.from_pretrained(path, local_files_only=True)


def join_images(prompts: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """The batch's image tensors: joined along the first axis, other axes zero-padded to the largest."""
    joined: dict[str, torch.Tensor] = {}
    for name, first in prompts[0].images.items():
        parts = [prompt.images[name] for prompt in prompts]
        if len({part.shape[1:] for part in parts}) > 1:
            sizes = [max(part.shape[axis] for part in parts) for axis in range(1, first.dim())]
            parts = [_grow(part, sizes) for part in parts]
        joined[name] = torch.cat(parts)
    return joined


def _grow(tensor: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    grown = tensor.new_zeros((len(tensor), *sizes))
    grown[tuple(slice(length) for length in tensor.shape)] = tensor
    return grown
