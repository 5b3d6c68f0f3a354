"""What the trainer needs: sound weights, a loss of the response alone, equal batches, gradients, groups to freeze."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from PIL import ImageChops

from mstar.core.records import Finish
from mstar.models.family import Encoded, Group
from mstar.stages.backends.modelcheck.finding import Fault
from mstar.stages.backends.modelcheck.patient import (
    RESPONSE,
    ROUNDING,
    SHORTER,
    SHORTEST,
    Gap,
    Patient,
    chosen,
    in_words,
    require,
    with_picture,
)
from mstar.stages.backends.objectives import Item, PolicyLoss, assemble

GROUPS: tuple[Group, ...] = get_args(Group)
SMALL = 1 << 16
"""Gradients are asked of tensors of at most so many numbers (norms and biases: some in every layer)."""

SEEN = 1e-5
"""What a change in a picture must change in the scores of the next token, at least; a picture that is ignored changes
nothing at all."""


def weights(patient: Patient) -> str:
    """Every weight is read from the files, is a number, and the vocabulary has its embeddings."""
    family = patient.family
    model = patient.model = family.load(dtype=torch.float32, device=patient.device)
    named = list(model.named_parameters())
    broken = [name for name, tensor in named if not torch.isfinite(tensor.detach().sum())]
    if broken:
        raise Fault(
            f"{len(broken)} of {len(named)} tensors hold NaN or infinity, the first is {broken[0]}",
            "The weights are damaged or come from a training that diverged: take an earlier checkpoint.",
        )
    rows = len(model.get_input_embeddings().weight)
    if rows < family.vocabulary:
        raise Fault(
            f"the tokenizer knows {family.vocabulary} tokens, and the weights have embeddings for {rows}",
            "Tokenizer and weights belong to different models: put the right tokenizer beside the weights.",
        )
    count = sum(tensor.numel() for _, tensor in named)
    size = in_words(sum(tensor.nbytes for _, tensor in named))
    where = patient.device.type
    return (
        f"{count:,} parameters in {len(named)} tensors, {size} as float32 on {where}; all are finite; "
        f"{rows} embeddings for {family.vocabulary} tokens"
    )


def picture_seen(patient: Patient) -> str:
    """The model takes each picture, and what it predicts depends on every quarter of one."""
    for name, code in patient.encoded.items():
        if not torch.isfinite(_next(patient, code)).all():
            raise Fault(
                f"{name}: the model predicts NaN or infinity after the prompt",
                "The weights or the image's tensors are unusable: look at the lines above, and at the processor.",
            )
    changes = []
    for name in ("tall", "wide"):
        prompt = patient.prompts[name]
        before = _next(patient, patient.encoded[name])
        width, height = prompt.image.size
        for left in (0, width // 2):
            for top in (0, height // 2):
                box = (left, top, left + width // 2, top + height // 2)
                image = prompt.image.copy()
                image.paste(ImageChops.invert(image.crop(box)), box)
                (code,) = patient.family.encode([with_picture(prompt, image)])
                changes.append(float((_next(patient, code) - before).abs().max()))
    unseen = sum(not change > SEEN for change in changes)
    said = f"{len(patient.encoded)} pictures are read; changing a quarter of one changes the next token's scores by"
    if unseen:
        raise Fault(
            f"{said} {min(changes):.1e} at least: {unseen} of {len(changes)} quarters are not seen",
            "The image, or a part of it, does not reach the model: mend the tensors that encode and collate give, or "
            "the processor's cropping.",
        )
    return f"{said} {min(changes):.1e} to {max(changes):.1e}"


def loss_mask(patient: Patient) -> str:
    """The loss covers the response (with its end, where it ended) and nothing else: the sum is computed by hand."""
    family = patient.family
    items = [
        patient.item(0, "tall", RESPONSE, Finish.STOP),
        patient.item(1, "wide", SHORTER, Finish.LENGTH),
    ]
    codes = [patient.encoded["tall"], patient.encoded["wide"]]
    for item, text, ending in zip(items, (RESPONSE, SHORTER), ((family.eos[0],), ()), strict=True):
        if item.answer != (*family.tokenize(text), *ending):
            raise Fault(
                f"of a response of {len(family.tokenize(text))} tokens and {len(ending)} end token the trainer learns "
                f"{len(item.answer)} tokens, or others",
                "The trainer's objective must learn the response's tokens, and its end if the model ended it.",
            )
    inputs, answered, _ = assemble(family, codes, items)
    for row, item in enumerate(items):
        marked = tuple(inputs["input_ids"][row][answered[row]].tolist())
        if marked != item.answer:
            raise Fault(
                f"row {row}: the loss covers {len(marked)} tokens, {family.decode(marked)[:60]!r}, where the response "
                f"is {len(item.answer)}, {family.decode(item.answer)[:60]!r}",
                "The label mask is shifted: the family's collate must put prompt and answer at the row's beginning.",
            )
    with torch.inference_mode():
        total = float(_summed_loss(patient, codes, items))
    by_hand = [-_by_hand(patient, code, item) for code, item in zip(codes, items, strict=True)]
    expected = float(torch.cat(by_hand).double().sum())
    count = int(answered.sum())
    apart = abs(total - expected) / count
    said = (
        f"{count} of {sum(item.length for item in items)} tokens count, the end token once; the loss a token is "
        f"{total / count:.4f}, by hand {expected / count:.4f}"
    )
    if not apart <= ROUNDING[patient.dtype][0]:
        raise Fault(
            f"{said}: {apart:.1e} apart",
            "The loss is of other tokens than the response's: look at collate, and at what the model's forward does "
            "with logits_to_keep and position_ids.",
        )
    return said


def batch_and_single(patient: Patient) -> str:
    """Rows of different lengths have in a batch the loss that they have alone."""
    texts = {"tall": SHORTEST, "wide": RESPONSE, "large": SHORTER}
    items = [
        patient.item(row, name, text, Finish.STOP) for row, (name, text) in enumerate(texts.items())
    ]
    codes = [patient.encoded[name] for name in texts]
    with torch.inference_mode():
        together = float(_summed_loss(patient, codes, items))
        alone = [
            float(_summed_loss(patient, [code], [item]))
            for code, item in zip(codes, items, strict=True)
        ]
    count = sum(len(item.answer) for item in items)
    apart = abs(together - sum(alone)) / count
    said = (
        f"{len(items)} rows of {min(item.length for item in items)} to {max(item.length for item in items)} tokens: "
        f"loss {together / count:.5f} a token together, {sum(alone) / count:.5f} alone"
    )
    if not apart <= ROUNDING[patient.dtype][0]:
        raise Fault(
            f"{said}: {apart:.1e} apart",
            "Rows disturb each other: look at the positions, masks and image tensors of the family's collate.",
        )
    return said


def left_padding(patient: Patient) -> str:
    """A row that is padded on the left, as samplers and scorers do, means what it means alone."""
    codes = list(patient.encoded.values())
    answers = [patient.family.tokenize(text) for text in (SHORTER, SHORTEST, RESPONSE)]
    padded = chosen(patient.predictions(codes, answers, pad="left"), answers)
    alone = []
    for code, answer in zip(codes, answers, strict=True):
        alone += chosen(patient.predictions([code], [answer]), [answer])
    return require(
        Gap.between(padded, alone),
        patient.dtype,
        "log-probabilities of rows padded on the left and of the same rows alone",
        "Left padding changes what a row means: collate must give positions that do not count the padding, and a mask.",
    )


def freezing(patient: Patient) -> str:
    """The groups that a spec can freeze are there and share nothing."""
    names = {id(tensor): name for name, tensor in patient.model.named_parameters()}
    sizes = {id(tensor): tensor.numel() for tensor in patient.model.parameters()}
    held = {g: {id(p) for p in patient.family.parameters(patient.model, g)} for g in GROUPS}
    empty = [group for group in GROUPS if not held[group]]
    shared = {
        names[key]
        for group in GROUPS
        for other in GROUPS
        if group < other
        for key in held[group] & held[other]
    }
    parts = [
        f"{group}: {len(keys)} tensors, {sum(sizes[key] for key in keys):,} parameters, in "
        f"{', '.join(_stems([names[key] for key in keys])) or 'nothing'}"
        for group, keys in held.items()
    ]
    free = [name for key, name in names.items() if not any(key in keys for keys in held.values())]
    parts.append(
        f"in no group: {len(free)} tensors" + (f" ({', '.join(_stems(free))})" if free else "")
    )
    said = "; ".join(parts)
    if empty or shared:
        what = (
            f"{', '.join(empty)} would freeze nothing"
            if empty
            else f"{min(shared)} is in two groups"
        )
        raise Fault(
            f"{what}: {said}",
            "Mend the family's parameters: optimization.freeze would freeze the wrong part.",
        )
    return said


def gradients(patient: Patient) -> str:
    """The loss has finite gradients in the language part, and in the vision part."""
    tried: dict[Group, list[torch.nn.Parameter]] = {}
    for group in ("language", "vision"):
        members = patient.family.parameters(patient.model, group)
        small = [tensor for tensor in members if tensor.numel() <= SMALL]
        tried[group] = small or sorted(members, key=torch.numel)[:1]
    found = _gradients_of(patient, [tensor for tensors in tried.values() for tensor in tensors])
    broken = sum(not gradient.isfinite().all() for gradient in found.values())
    reached = {
        group: sum(id(t) in found and bool(found[id(t)].any()) for t in tensors)
        for group, tensors in tried.items()
    }
    said = "gradients reach " + " and ".join(
        f"{reached[group]} of {len(tensors)} sampled {group} tensors"
        for group, tensors in tried.items()
    )
    if broken or reached["language"] <= len(tried["language"]) / 2 or not reached["vision"]:
        raise Fault(
            f"{said}; {broken} hold NaN or infinity",
            "Training would not move what it should: the forward detaches a part, the image does not reach the "
            "language model, or numbers overflow.",
        )
    return said


def _gradients_of(
    patient: Patient, wanted: Sequence[torch.nn.Parameter]
) -> dict[int, torch.Tensor]:
    """The gradients of a response's loss, by the tensors' identities; what the loss does not depend on is left out."""
    before = [(tensor, tensor.requires_grad) for tensor in patient.model.parameters()]
    # Only these keep what their gradients need; those of all weights would take as much memory as the weights.
    for tensor, _ in before:
        tensor.requires_grad = False
    for tensor in wanted:
        tensor.requires_grad = True
    try:
        item = patient.item(0, "tall", RESPONSE, Finish.STOP)
        loss = _summed_loss(patient, [patient.encoded["tall"]], [item]) / len(item.answer)
        if not loss.requires_grad:
            return {}
        found: Sequence[torch.Tensor | None] = torch.autograd.grad(loss, wanted, allow_unused=True)
    finally:
        for tensor, trained in before:
            tensor.requires_grad = trained
    pairs = zip(wanted, found, strict=True)
    return {id(tensor): gradient for tensor, gradient in pairs if gradient is not None}


def _next(patient: Patient, code: Encoded) -> torch.Tensor:
    """The scores of the token after a prompt that stands alone."""
    inputs = patient.to_device(patient.family.collate([code], [()], pad="right"))
    with torch.inference_mode(), patient.precision():
        logits = patient.model(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1]
    return logits.float()


def _summed_loss(patient: Patient, codes: Sequence[Encoded], items: Sequence[Item]) -> torch.Tensor:
    """The trainer's loss of a batch."""
    inputs, answered, targets = assemble(patient.family, codes, items)
    with patient.precision():
        loss: torch.Tensor = PolicyLoss(patient.model)(
            patient.to_device(inputs), answered.to(patient.device), targets.to(patient.device)
        )
    return loss


@torch.inference_mode()
def _by_hand(patient: Patient, code: Encoded, item: Item) -> torch.Tensor:
    """The log-probability of each token of an answer, from all scores of one row that is not padded."""
    inputs = patient.family.collate([code], [item.answer], pad="right")
    whole = [*code.tokens, *item.answer]
    if inputs["input_ids"].tolist() != [whole]:
        raise Fault(
            f"a row of {len(whole)} tokens is collated to others ({inputs['input_ids'].shape[1]})",
            "The family's collate must put prompt and answer one after the other, and pad nothing in a single row.",
        )
    with patient.precision():
        logits = patient.model(**patient.to_device(inputs), use_cache=False).logits[0]
    values = logits[len(code.tokens) - 1 : -1].float().log_softmax(dim=-1)
    return chosen([values], [item.answer])[0]


def _stems(names: Sequence[str]) -> list[str]:
    """The modules that tensors lie in, by the first two parts of their names."""
    return sorted({".".join(name.split(".")[:2]) for name in names})
