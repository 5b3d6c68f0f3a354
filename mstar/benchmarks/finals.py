r"""Which part of a response is its answer.

A chain of thought names several options and numbers, and the official rules were made for short answers. So what is
marked as the final answer (``\boxed{...}``, else the last "answer is ..." or "Answer: ...") is read first, and the
whole response only where nothing is marked.
"""

import re
from collections.abc import Sequence

from mstar.core.answers import LETTERS, canonical_answer, extract_answer

LONGEST = 1000
"""Characters of a final answer; what is longer is none."""

_SAID = re.compile(r"\banswer\**(?:\s+is\b|\s*[:=])\s*:?([^\n]+)", re.IGNORECASE)
_BARE = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_AROUND = " \t*\"'`"


def final_answer(response: str) -> str | None:
    """What a response marks as its final answer, or None."""
    boxed = extract_answer(response)
    if boxed is None:
        said = _SAID.findall(response)
        boxed = said[-1].strip(_AROUND).rstrip(".").strip(_AROUND) if said else None
    return boxed if boxed and len(boxed) <= LONGEST else None


def named_option(final: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that ``final`` is the letter or the text of, or None."""
    bare = _BARE.fullmatch(final)
    if bare and bare[1].upper() in LETTERS[: len(options)]:
        # Also where it is another option's text: the prompts ask for letters.
        return bare[1].upper()
    if not options:
        return None
    said = canonical_answer(final, options)
    same = [
        letter
        for letter, text in zip(LETTERS, options, strict=False)
        if canonical_answer(text, options) == said
    ]
    return same[0] if len(same) == 1 else None
