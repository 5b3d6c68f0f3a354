"""The model that is looked at: its family, weights, and a few synthetic pictures to ask it about."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw

from mstar.core.records import Example, Finish
from mstar.execution import Execution
from mstar.models.family import Encoded, Family, Side, load_family
from mstar.stages.backends.modelcheck.finding import Fault
from mstar.stages.backends.objectives import Item, answer_columns, assemble, policy_item
from mstar.stages.backends.runtime import choose_device, choose_dtype
from mstar.stages.protocols import Prompted

Dtype = Literal["float32", "bfloat16"]

QUESTION = "How many shapes are there? Reason in steps, then answer in \\boxed{}."
RESPONSE = "There are 3 circles.\nThere are 4 squares.\n3 + 4 = 7, so it is \\boxed{7}."
SHORTER = "There are 3 circles.\nThen"
SHORTEST = "\\boxed{7}"

PICTURES = {"tall": (224, 448), "wide": (560, 224), "large": (1280, 960)}
"""Width and height of the pictures; they are halved until they fit the context and the limit of pixels."""
SMALLEST = 28
MOST_SHRINKS = 6

DRAWN_TOKENS = 24
"""Tokens that an engine is asked for."""

ROUNDING: dict[Dtype, tuple[float, float]] = {"float32": (5e-4, 5e-3), "bfloat16": (0.05, 1.0)}
"""By how much two ways to compute a token's log-probability may differ: on average, and at most."""


@dataclass(slots=True, kw_only=True)
class Patient:
    """A model folder, and what the checks have found in it so far: each field without a default is one check's doing.

    ``dtype`` is what the trainer computes in; its weights are float32 in any case.
    """

    path: Path
    execution: Execution = field(default_factory=Execution)
    dtype: Dtype = "float32"
    open_family: Callable[..., Family] = load_family
    ask_vllm: Callable[[Any], Any] | None = None
    """What asks vLLM to draw, when it is not to be a process of its own."""
    scratch: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    family: Family = field(init=False)
    prompts: dict[str, Prompted] = field(init=False)
    encoded: dict[str, Encoded] = field(init=False)
    model: Any = field(init=False)
    drawn: Drawn = field(init=False)
    """What the transformers sampler drew."""
    foreign: Drawn = field(init=False)
    """What vLLM drew."""

    def open(self, folder: Path) -> Family:
        """The family of this model's folder, or of a copy."""
        allowed = {"remote_code": True} if self.execution.remote_code else {}
        return self.open_family(folder, max_pixels=self.execution.max_pixels, **allowed)

    @property
    def device(self) -> torch.device:
        """Where the model is put."""
        return choose_device(self.execution)

    @property
    def sampling_dtype(self) -> torch.dtype:
        """What sampling and scoring compute in."""
        return choose_dtype(self.device)

    def precision(self) -> AbstractContextManager[Any]:
        """The trainer's number format, for a forward."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def item(self, row: int, name: str, text: str, finish: Finish) -> Item:
        """A training row about a picture, as the trainer makes it of a response."""
        tokens = self.family.tokenize(text)
        example = Example(
            query_id=name, sample=0, text=text, tokens=tokens, finish=finish, policy="", seed=0
        )
        return policy_item(self.family, example, row, len(self.encoded[name].tokens))

    def to_device(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch where the model is."""
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    @torch.inference_mode()
    def predictions(
        self, codes: Sequence[Encoded], answers: Sequence[tuple[int, ...]], *, pad: Side = "right"
    ) -> list[torch.Tensor]:
        """For each row, log-probabilities (answer tokens, vocabulary) of what each token of its answer could have been.

        Padded on the right, it is the trainer's forward: no cache, no attention mask.
        """
        items = [
            Item(row=row, name=f"row {row}", prompt_length=len(code.tokens), answer=answer)
            for row, (code, answer) in enumerate(zip(codes, answers, strict=True))
        ]
        if pad == "right":
            inputs, answered, _ = assemble(self.family, codes, items)
        else:
            inputs = self.family.collate(codes, answers, pad="left")
            answered = torch.zeros(inputs["input_ids"].shape, dtype=torch.bool)
            for row, answer in enumerate(answers):
                answered[row, answered.shape[1] - len(answer) :] = True
        columns = answer_columns(answered)
        with self.precision():
            output = self.model(
                **self.to_device(inputs), use_cache=False, logits_to_keep=columns + 1
            )
        logits = output.logits[:, -columns - 1 : -1][answered[:, -columns:].to(self.device)]
        chosen = logits.float().log_softmax(dim=-1)
        return list(chosen.split([len(answer) for answer in answers]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Rows that an engine drew: of which prompt, the tokens, the engine's log-probability of each, greedy or not."""

    codes: tuple[Encoded, ...]
    tokens: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]
    greedy: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How far two computations of the same numbers lie apart."""

    mean: float
    largest: float
    count: int

    @classmethod
    def between(cls, mine: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> Gap:
        """Of equally shaped lists of tensors."""
        pairs = zip(mine, theirs, strict=True)
        apart = torch.cat([(a.cpu().double() - b.cpu().double()).abs().flatten() for a, b in pairs])
        return cls(mean=float(apart.mean()), largest=float(apart.max()), count=len(apart))

    def within(self, dtype: Dtype) -> bool:
        """Whether rounding explains it; NaN never."""
        mean, largest = ROUNDING[dtype]
        return self.mean <= mean and self.largest <= largest

    def __str__(self) -> str:
        return (
            f"largest difference {self.largest:.1e}, mean {self.mean:.1e}, over {self.count} tokens"
        )


def chosen(
    predictions: Sequence[torch.Tensor], answers: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """The log-probability of each token of each answer."""
    picked = []
    for values, answer in zip(predictions, answers, strict=True):
        index = torch.tensor(list(answer), device=values.device)[:, None]
        picked.append(values.gather(-1, index)[:, 0])
    return picked


def require(gap: Gap, dtype: Dtype, what: str, advice: str) -> str:
    """``what`` with the gap; ``Fault`` when rounding does not explain it."""
    if not gap.within(dtype):
        raise Fault(f"{what}: {gap}; rounding explains {ROUNDING[dtype][1]:g}", advice)
    return f"{what}: {gap}"


def ask_about_pictures(
    family: Family, max_pixels: int, room: int
) -> tuple[dict[str, Prompted], dict[str, Encoded], bool]:
    """A question about each picture, and both as tokens; true when the pictures had to be made small.

    They are, for ``max_pixels`` and for a context that is to leave ``room`` tokens for a response.
    """
    for shrink in range(MOST_SHRINKS):
        prompts = draw_pictures(shrink)
        if (
            max(prompt.image.width * prompt.image.height for prompt in prompts.values())
            > max_pixels
        ):
            continue
        longest = max(tokens for tokens, _ in family.measure(list(prompts.values())))
        if longest + room <= family.context:
            codes = family.encode(list(prompts.values()))
            return prompts, dict(zip(prompts, codes, strict=True)), shrink > 0
    sizes = " and ".join("{}x{}".format(*prompt.image.size) for prompt in prompts.values())
    raise Fault(
        f"even pictures of {sizes} are more than the {max_pixels} "
        f"pixels that are taken, or leave too little of the context of {family.context} tokens",
        "Raise --max-pixels (execution.max_pixels), or see max_position_embeddings in the model's config.json.",
    )


def draw_pictures(shrink: int = 0) -> dict[str, Prompted]:
    """A question about each of three pictures, whose sides are halved ``shrink`` times."""
    prompts = {}
    for number, (name, size) in enumerate(PICTURES.items()):
        width, height = (max(SMALLEST, side >> shrink) for side in size)
        prompts[name] = Prompted(
            query_id=name, text=QUESTION, image=draw_picture((width, height)), seeds=(number,)
        )
    return prompts


def draw_picture(size: tuple[int, int]) -> Image.Image:
    """Circles and squares over a slope of grey; the same size gives the same picture."""
    slope = Image.linear_gradient("L").resize(size)
    picture = Image.merge("RGB", (slope, slope.transpose(Image.Transpose.ROTATE_180), slope))
    pen = ImageDraw.Draw(picture)
    width, height = size
    for number in range(7):
        x, y = width * (number * 3 % 7) // 7, height * number // 7
        box = (x, y, x + max(2, width // 8), y + max(2, height // 8))
        shape = pen.ellipse if number % 2 == 0 else pen.rectangle
        shape(box, fill=(40 * number, 255 - 30 * number, 90 + 20 * number))
    return picture


def with_picture(prompt: Prompted, image: Image.Image) -> Prompted:
    """The same question about another picture."""
    return replace(prompt, image=image)


def in_words(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
