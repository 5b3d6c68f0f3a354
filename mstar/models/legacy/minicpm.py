"""MiniCPM-Llama3-V-2.5: an image is cut into up to 9 slices and a small copy, each read as ``query_num`` tokens.

Its code takes one ``data`` dictionary whose images are lists of lists; here they travel as tensors that batches can
join, and become lists again in front of the model. Labels, which its code wants shifted, never reach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoProcessor

from mstar.errors import ModelError
from mstar.models.family import Asked, Encoded, Side
from mstar.models.legacy.base import LegacyFamily
from mstar.models.legacy.front import Front
from mstar.models.legacy.remote import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Sequence


IMAGE = "(<image>./</image>)"
"""What the processor replaces by an image's tokens."""


class MiniCPMFront(Front):
    """MiniCPMV: ``get_vllm_embedding`` puts slices where ``image_bound`` says."""

    @property
    def language(self) -> Any:
        """The language model, head included."""
        return self.remote.llm

    def embed(self, input_ids: torch.Tensor, **images: torch.Tensor) -> torch.Tensor:
        """The language model's input."""
        data: dict[str, Any] = {"input_ids": input_ids}
        if images:
            data |= as_lists(**images)
        else:
            data["vision_hidden_states"] = [[] for _ in input_ids]
        embedded, _ = self.remote.get_vllm_embedding(data)
        return embedded


class MiniCPMFamily(LegacyFamily):
    """Prompts of one image each for MiniCPM-Llama3-V-2.5."""

    endings = ("<|eot_id|>",)
    feature = "<unk>"
    around = ("<image>", "</image>", "<slice>", "</slice>")
    image_limit = "max_slice_nums of preprocessor_config.json"

    def open_processor(self) -> Any:
        """The folder's own processor."""
        return AutoProcessor.from_pretrained(self.path, **TRUSTED)

    def render(self, text: str) -> str:
        """The chat prompt of one image and the user's text, up to where the model answers."""
        prompt: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{IMAGE}\n{text}"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        return prompt

    def measure(self, prompts: Sequence[Asked]) -> list[tuple[int, int]]:
        """Of each prompt how many tokens it has, and how many of those stand for its image."""
        found = []
        for prompt in prompts:
            place = self.processor.image_processor.get_slice_image_placeholder(prompt.image.size)
            tokens = self.tokenizer.encode(self.render(prompt.text).replace(IMAGE, place, 1))
            slices = tokens.count(self.token(self.around[0]))
            found.append((len(tokens), slices * int(self.config.query_num)))
        return found

    def read(self, prompt: Asked) -> Encoded:
        """One prompt's tokens, slices and where they go."""
        # Without a max_length: the processor would cut the prompt there, image tokens included.
        output = self.processor(
            self.render(prompt.text), [prompt.image.convert("RGB")], return_tensors="pt"
        )
        tokens = tuple(torch.as_tensor(output["input_ids"]).reshape(-1).tolist())
        bounds = torch.as_tensor(output["image_bound"][0], dtype=torch.long).reshape(-1, 2)
        slices = [torch.as_tensor(part) for part in output["pixel_values"][0]]
        sizes = torch.as_tensor(output["tgt_sizes"][0], dtype=torch.long).reshape(-1, 2)
        room = (bounds[:, 1] - bounds[:, 0]).tolist()
        if len(slices) != len(bounds) or set(room) != {int(self.config.query_num)}:
            raise ModelError(
                f"query {prompt.query_id}: the processor in {self.path} made {len(slices)} slices for places of "
                f"{room} tokens, and the model reads each as {self.config.query_num}; processor and model differ"
            )
        return Encoded(
            tokens=tokens,
            images={
                "pixel_values": _stack(slices),
                "tgt_sizes": sizes,
                "image_bound": bounds,
                "slices": torch.tensor([len(slices)]),
            },
            next_position=len(tokens),
            image_tokens=sum(room),
        )

    def collate(
        self, prompts: Sequence[Encoded], answers: Sequence[Sequence[int]], *, pad: Side
    ) -> dict[str, torch.Tensor]:
        """A batch of rows ``prompt + answer`` as keyword arguments of the model's forward."""
        batch = super().collate(prompts, answers, pad=pad)
        # Where images go is counted from the start of a prompt, which padding moves.
        starts = batch["attention_mask"].argmax(dim=1).repeat_interleave(batch["slices"])
        batch["image_bound"] = batch["image_bound"] + starts[:, None]
        return batch

    def _placeholder(self) -> int:
        return int(self.tokenizer.unk_token_id)

    def _reserved_tokens(self) -> tuple[int, ...]:
        return tuple(sorted(self.token(text) for text in self.around))

    def _check_whole(self, ids: torch.Tensor, prompts: Sequence[Encoded]) -> None:
        """The token of a feature may also be an unknown character's, so what stands around it is counted."""
        before, after = (self.token(text) for text in self.around[:2])
        for row, prompt in enumerate(prompts):
            first, last = ((ids[row] == token).nonzero()[:, 0] for token in (before, after))
            bounds = prompt.images["image_bound"]
            rooms = bounds[:, 1] - bounds[:, 0]
            if len(first) != len(last) or not torch.equal(last - first - 1, rooms):
                raise ModelError(
                    f"row {row} of a batch has other image tokens than its image makes: the prompt was cut, or the "
                    "response holds a placeholder. Nothing may be cut inside an image."
                )

    def front(self, remote: Any) -> Front:
        """The remote model behind the interface that the backends use."""
        return MiniCPMFront(remote)


def as_lists(
    pixel_values: torch.Tensor,
    tgt_sizes: torch.Tensor,
    image_bound: torch.Tensor,
    slices: torch.Tensor,
) -> dict[str, list[Any]]:
    """Joined images as the remote code takes them: by row, each slice without the padding behind it."""
    patch = pixel_values.shape[2]
    wide = (tgt_sizes[:, 0] * tgt_sizes[:, 1] * patch).tolist()
    parts = [part[..., :width] for part, width in zip(pixel_values, wide, strict=True)]
    rows: list[list[torch.Tensor]] = []
    for count in slices.tolist():
        rows.append(parts[:count])
        parts = parts[count:]
    return {
        "pixel_values": rows,
        "tgt_sizes": list(tgt_sizes.split(slices.tolist())),
        "image_bound": list(image_bound.split(slices.tolist())),
    }


def _stack(slices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Slices (3, patch, width) as one tensor, zeros behind the narrower ones."""
    widest = max(part.shape[-1] for part in slices)
    stacked = slices[0].new_zeros((len(slices), *slices[0].shape[:-1], widest))
    for row, part in enumerate(slices):
        stacked[row, ..., : part.shape[-1]] = part
    return stacked
