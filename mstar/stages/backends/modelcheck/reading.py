"""What can be seen without weights: the folder, the end of a response, banned tokens, text, pictures, the context."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from PIL import Image

from mstar.core.steps import split_steps, step_ends_from_pieces
from mstar.models.family import Encoded, Family, model_type
from mstar.models.prm import is_reward_model
from mstar.stages.backends.modelcheck.finding import Fault
from mstar.stages.backends.modelcheck.patient import (
    DRAWN_TOKENS,
    RESPONSE,
    Patient,
    ask_about_pictures,
    in_words,
    with_picture,
)
from mstar.stages.protocols import Prompted

MARK = "seven"
WEIGHTS = ("*.safetensors", "*.bin")


def folder(patient: Patient) -> str:
    """Configuration and processor open, and a family serves the architecture."""
    kind = model_type(patient.path)
    patient.family = patient.open(patient.path)
    files = [file for pattern in WEIGHTS for file in patient.path.glob(pattern)]
    size = in_words(sum(file.stat().st_size for file in files))
    config: dict[str, Any] = json.loads((patient.path / "config.json").read_bytes())
    written, here = config.get("transformers_version", "unknown"), version("transformers")
    note = "; it is a PRM's, give it to --prm too" if is_reward_model(patient.path) else ""
    return (
        f"{kind}, read by {type(patient.family).__name__}; {size} of weights in {len(files)} files, "
        f"written by transformers {written}, read by {here}{note}"
    )


def end_of_response(patient: Patient) -> str:
    """A response can end: its end tokens may be drawn, and the chat template closes an answer with one of them."""
    family = patient.family
    names = [_show(family, token) for token in family.eos]
    if not family.eos:
        raise Fault(
            "the family names no token that ends a response",
            "Set eos_token in the tokenizer, or eos_token_id in generation_config.json.",
        )
    banned = set(family.eos) & set(family.banned)
    unknown = [token for token in family.eos if not 0 <= token < family.vocabulary]
    if banned or unknown:
        raise Fault(
            f"of the end tokens {', '.join(names)}, {len(banned)} are banned from sampling and {len(unknown)} are "
            f"unknown to the tokenizer",
            "No response could end with them: set eos_token_id in generation_config.json to the token that ends an "
            "answer of this model.",
        )
    said = f"{', '.join(names)} ends a response; training appends {names[0]}"
    closing, closes = _closing(family)
    if closing is not None and closing not in family.eos:
        raise Fault(
            f"{closes}, and the end tokens are {', '.join(names)}: responses would run on after their end",
            "Add the template's token to eos_token_id in generation_config.json.",
        )
    return f"{said}; {closes}"


def response_text(patient: Patient) -> str:
    r"""A response of several lines with ``\boxed{}`` becomes tokens and the same text and steps again."""
    family = patient.family
    tokens = family.tokenize(RESPONSE)
    again = family.decode(tokens)
    if again != RESPONSE:
        raise Fault(
            f"{RESPONSE!r} comes back as {again!r}",
            "The tokenizer changes a response's text, and answers are read from the text: mend the tokenizer's files, "
            "or the family's tokenize and decode.",
        )
    held = sorted({*tokens} & {*family.banned, *family.eos})
    if held:
        names = ", ".join(_show(family, token) for token in held)
        raise Fault(
            f"plain text is tokenised with {names}, which end a response or are never drawn",
            "The family's tokenize must add no special tokens.",
        )
    head = family.tokenize(RESPONSE[:30])
    if family.decode(head) + family.decode(family.tokenize(RESPONSE[30:]), prefix=head) != RESPONSE:
        raise Fault(
            "a response that goes on from its first half loses characters where they meet",
            "The family's decode must give what tokens add after a prefix.",
        )
    steps = step_ends_from_pieces(family.pieces(tokens))
    wanted = len(split_steps(RESPONSE))
    if len(steps) != wanted:
        raise Fault(
            f"{wanted} lines are found as {len(steps)} steps in the tokens",
            "The pieces of the tokens lose newlines: the PRM would score other steps. Mend the family's pieces.",
        )
    return f"{len(tokens)} tokens and back without a change; {wanted} steps end after tokens {list(steps)}"


def pictures(patient: Patient) -> str:
    """Three pictures are encoded, and the question stands whole after each of them."""
    family = patient.family
    patient.prompts, patient.encoded, small = ask_about_pictures(
        family, patient.execution.max_pixels, len(family.tokenize(RESPONSE)) + DRAWN_TOKENS
    )
    parts = []
    heads = set()
    for name, code in patient.encoded.items():
        prompt = patient.prompts[name]
        _check_positions(name, code)
        heads.add(_text_around(family, prompt, code))
        width, height = prompt.image.size
        image = sum(image_tokens(family, prompt, code).values())
        parts.append(
            f"{name} {width}x{height}: {len(code.tokens)} tokens, {image} because of the image"
        )
    if len(heads) > 1:
        raise Fault(
            "the text before the image differs from picture to picture: " + "; ".join(parts),
            "A prompt was cut at its beginning: switch off truncation (max_length) in the processor, or mend encode.",
        )
    _check_measures(patient)
    return "; ".join(parts) + ("; made small to fit" if small else "")


def banned_tokens(patient: Patient) -> str:
    """The placeholder of an image is never drawn, nor is padding."""
    family = patient.family
    placeholders: set[int] = set()
    others: set[int] = set()
    for name, code in patient.encoded.items():
        born = image_tokens(family, patient.prompts[name], code)
        # A negative number is no token at all: some processors mark an image's place with it.
        special = {token for token in born if token >= 0 and not family.pieces([token])[0]}
        if born:
            most = max(born.values())
            placeholders |= {token for token in special if born[token] == most}
        others |= special
    free = placeholders - set(family.banned)
    if free or not family.banned:
        names = ", ".join(_show(family, token) for token in sorted(free)) or "nothing at all"
        raise Fault(
            f"{len(family.banned)} tokens are banned from sampling, and {names} should be",
            "A sampled placeholder stands for an image that is not there: add it to the family's banned tokens.",
        )
    if family.pad not in {*family.banned, *family.eos}:
        raise Fault(
            f"the padding token {_show(family, family.pad)} may be drawn",
            "Add it to the family's banned tokens, or let it end a response.",
        )
    shown = ", ".join(_show(family, token) for token in sorted(placeholders))
    rest = len(others - placeholders - set(family.banned))
    note = f"; {rest} other tokens around images are not" if rest else ""
    return (
        f"{len(family.banned)} tokens are never drawn, {shown or 'no placeholder'} among them{note}"
    )


def largest_picture(patient: Patient) -> str:
    """The largest picture that is taken fits into the context."""
    limit = patient.execution.max_pixels
    side = math.isqrt(limit)
    picture = Image.linear_gradient("L").resize((side, side)).convert("RGB")
    prompt = with_picture(next(iter(patient.prompts.values())), picture)
    (code,) = patient.family.encode([prompt])
    context, tokens = patient.family.context, len(code.tokens)
    said = (
        f"{side}x{side} pixels and a short question are {tokens} tokens; the context is {context}"
    )
    if tokens >= context:
        shares = image_tokens(patient.family, prompt, code).values()
        image = sum(shares)
        fits = int(limit * max(0, context - (tokens - image)) / max(image, 1) * 0.9)
        raise Fault(
            said,
            f"Prompts with such images would be refused: set execution.max_pixels to about {fits}, or shrink images.",
        )
    return f"{said}, which leaves {context - tokens}"


def image_tokens(family: Family, prompt: Prompted, code: Encoded) -> Counter[int]:
    """The tokens, counted, that a prompt has because of its image: what its text alone has none or fewer of."""
    text = Counter(family.tokenize(family.render(prompt.text)))
    more = Counter(code.tokens) - text
    # The template's placeholder is one of the image's tokens, or was replaced by them; a newline between tiles is not.
    again = {token for token in more if token >= 0 and not family.pieces([token])[0]}
    return more + Counter({token: text[token] for token in again})


def _check_measures(patient: Patient) -> None:
    measured = patient.family.measure(list(patient.prompts.values()))
    for (name, code), (tokens, image) in zip(patient.encoded.items(), measured, strict=True):
        if (tokens, image) != (len(code.tokens), code.image_tokens):
            raise Fault(
                f"{name}: the prompt has {len(code.tokens)} tokens, {code.image_tokens} of its image, but measured "
                f"without its pixels {tokens} and {image}",
                "Prompts would pass for shorter or longer than they are: image tokens are cut, or the family's measure "
                "is wrong.",
            )


def _check_positions(name: str, code: Encoded) -> None:
    if code.positions is not None and code.positions.shape[-1] != len(code.tokens):
        raise Fault(
            f"{name}: {len(code.tokens)} tokens have {code.positions.shape[-1]} positions",
            "The family's encode must give each token of a prompt its position.",
        )
    for key, values in code.token_inputs.items():
        if len(values) != len(code.tokens):
            raise Fault(
                f"{name}: {len(code.tokens)} tokens have {len(values)} {key}",
                "The family's encode must give each token of a prompt its value.",
            )


def _text_around(family: Family, prompt: Prompted, code: Encoded) -> str:
    """The prompt's text before the question, squeezed; ``Fault`` when the question or what follows it is not whole."""
    born = image_tokens(family, prompt, code)
    question = _squeeze(prompt.text)
    wanted = _squeeze(family.decode(family.tokenize(family.render(prompt.text))))
    found = _squeeze(family.decode(_plain(code.tokens, born)))
    before, asked, after = found.partition(question)
    if not asked or after != wanted.partition(question)[2]:
        raise Fault(
            f"{prompt.query_id}: the question is not whole in the prompt, which ends with {found[-60:]!r} and not with "
            f"{wanted[-60:]!r}",
            "The prompt was cut: switch off truncation (max_length) in the processor, or mend the family's encode.",
        )
    return before


def _plain(tokens: Iterable[int], born: Counter[int]) -> list[int]:
    return [token for token in tokens if token >= 0 and token not in born]


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _show(family: Family, token: int) -> str:
    """A token's name where the family has a tokenizer that knows it, else its number."""
    tokenizer = getattr(family, "tokenizer", None)
    name = tokenizer.convert_ids_to_tokens(token) if tokenizer is not None else None
    return repr(name) if name else str(token)


def _closing(family: Family) -> tuple[int | None, str]:
    """The first special token that the chat template writes after an answer, if any, and that in words."""
    processor: Any = getattr(family, "processor", None)
    if not getattr(processor, "chat_template", None):
        return None, "the family has no chat template to look at"
    turns = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": "Four and three?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": MARK}]},
    ]
    try:
        written: str = processor.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # noqa: BLE001 (a template is its makers' program, and one for questions alone is fine)
        return None, f"the chat template takes no answer ({type(error).__name__})"
    after = family.tokenize(written.rpartition(MARK)[2])
    found = next((token for token in after if not family.pieces([token])[0]), None)
    if found is None:
        return None, "the chat template closes an answer with no token of its own"
    return found, f"the chat template closes an answer with {_show(family, found)}"
