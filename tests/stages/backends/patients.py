"""Patients for the checks of a model: a tiny Qwen2-VL that is well, and families that each have one fault."""

from dataclasses import replace

import torch

from mstar.execution import Execution
from mstar.models.qwen_vl import QwenVLFamily
from mstar.stages.backends.modelcheck import learning, reading
from mstar.stages.backends.modelcheck.patient import Patient

ON_CPU = Execution(device="cpu", max_pixels=1 << 20)


def opened(folder, family=QwenVLFamily, **options):
    """A patient whose family is open."""
    patient = Patient(path=folder, execution=ON_CPU, open_family=family, **options)
    reading.folder(patient)
    return patient


def admitted(folder, family=QwenVLFamily, **options):
    """A patient whose pictures are encoded and whose weights are loaded."""
    patient = opened(folder, family, **options)
    reading.pictures(patient)
    learning.weights(patient)
    return patient


class Shifted(QwenVLFamily):
    """Rows padded on the right begin one place late, so a mask counted from the beginning is off by one."""

    def collate(self, prompts, answers, *, pad):
        batch = super().collate(prompts, answers, pad=pad)
        if pad == "right":
            batch["input_ids"] = batch["input_ids"].roll(1, dims=1)
        return batch


class Blind(QwenVLFamily):
    """Every picture is black by the time it reaches the model."""

    def encode(self, prompts):
        return [
            replace(code, images={**code.images, "pixel_values": code.images["pixel_values"] * 0})
            for code in super().encode(prompts)
        ]


class OneEyed(QwenVLFamily):
    """The right half of every picture is black."""

    def encode(self, prompts):
        darkened = []
        for prompt in prompts:
            width, height = prompt.image.size
            image = prompt.image.copy()
            image.paste((0, 0, 0), (width // 2, 0, width, height))
            darkened.append(replace(prompt, image=image))
        return super().encode(darkened)


class CountingPadding(QwenVLFamily):
    """Rows padded on the left come without positions of their own: they are counted from the row's beginning."""

    def collate(self, prompts, answers, *, pad):
        batch = super().collate(prompts, answers, pad=pad)
        if pad == "left":
            places = torch.arange(batch["input_ids"].shape[1])
            batch["position_ids"] = places.expand_as(batch["position_ids"]).clone()
        return batch


class NoMask(QwenVLFamily):
    """Rows padded on the left attend to their padding."""

    def collate(self, prompts, answers, *, pad):
        batch = super().collate(prompts, answers, pad=pad)
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        return batch


class Mixing(QwenVLFamily):
    """In a batch, rows after the first have the positions of the first."""

    def collate(self, prompts, answers, *, pad):
        batch = super().collate(prompts, answers, pad=pad)
        batch["position_ids"] = (
            batch["position_ids"][:, :1].expand_as(batch["position_ids"]).clone()
        )
        return batch


class Cutting(QwenVLFamily):
    """A processor that truncates: prompts end after 40 tokens."""

    def encode(self, prompts):
        return [cut(code, slice(0, 40)) for code in super().encode(prompts)]


class CuttingHeads(QwenVLFamily):
    """A processor that truncates long prompts at their beginning, where the template's own text stands."""

    def render(self, text):
        return "Look closely. " + super().render(text)

    def encode(self, prompts):
        codes = super().encode(prompts)
        longest = max(len(code.tokens) for code in codes)
        return [cut(c, slice(5, None)) if len(c.tokens) == longest else c for c in codes]


class CuttingImages(QwenVLFamily):
    """The last two placeholders of an image are lost, the text is whole."""

    def encode(self, prompts):
        codes = []
        for code in super().encode(prompts):
            last = max(at for at, token in enumerate(code.tokens) if token == self.placeholder)
            keep = [at for at in range(len(code.tokens)) if at not in {last - 1, last}]
            codes.append(replace(cut(code, keep), image_tokens=code.image_tokens - 2))
        return codes


class BelievingItsCut(CuttingImages):
    """The same, and nothing but the model could notice."""

    def measure(self, prompts):
        return [(tokens - 2, image - 2) for tokens, image in super().measure(prompts)]


def cut(code, keep):
    """An encoded prompt with some of its tokens."""

    def kept(values):
        return tuple(values[keep]) if isinstance(keep, slice) else tuple(values[at] for at in keep)

    return replace(
        code,
        tokens=kept(code.tokens),
        token_inputs={name: kept(values) for name, values in code.token_inputs.items()},
        positions=code.positions[:, keep],
    )
