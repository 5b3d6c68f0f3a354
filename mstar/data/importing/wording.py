r"""Questions and answers as data sets write them: options apart from the question, answers apart from their sentence.

MathV360K asks as ``Hint: ...\nQuestion: ...\nChoices:\n(A) ...\n(B) ...`` and answers ``The answer is B``.
"""

import re
from collections.abc import Sequence

from mstar.core.answers import LETTERS
from mstar.core.numerals import LONGEST, parse_number

KINDS = (
    "choice", "yes/no", "integer", "decimal", "percent", "fraction", "list", "expression", "text",
)  # fmt: skip
"""What an answer may be, in the order in which it is tried."""

IMAGE_MARK = "<image>"

_INSTRUCTION = re.compile(
    r"\s*(?:hint:|first perform reasoning\b|first conduct reasoning\b|please answer\b|answer the math)"
    r".*?(?:^|\s)question:",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
_QUESTION = re.compile(r"\s*question:", re.IGNORECASE)
_CHOICES = re.compile(r"^[ \t]*(?:choices|options):", re.IGNORECASE | re.MULTILINE)
_LINE = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.:)])[ \t]*", re.MULTILINE)
_INLINE = re.compile(r"(?:^|(?<=\s))\(([A-Z])\)\s*")
_SENTENCE = re.compile(r"\s*(?:the\s+)?answer\s*(?:is\b\s*:?|:)\s*(.*)", re.IGNORECASE | re.DOTALL)
_LIST = re.compile(r"[\[(].*,.*[\])]", re.DOTALL)
_YES_NO = frozenset({"yes", "no", "true", "false"})
_ALGEBRA = re.compile(r"[\\^=<>√π]|\d\s*[*/+]\s*[a-z]|[a-z]\s*[*/+-]\s*\d", re.IGNORECASE)


def read_question(text: str) -> tuple[str, tuple[str, ...]]:
    """The question alone and its options: no mark of the image, no hint how to answer, no list of choices.

    A list that is not lettered A, B, C in order is no list of choices and stays in the question.
    """
    plain = text.replace(IMAGE_MARK, "").strip()
    if found := _INSTRUCTION.match(plain) or _QUESTION.match(plain):
        plain = plain[found.end() :].strip()
    labels = list(_CHOICES.finditer(plain))
    if not labels:
        return plain, ()
    options = read_options(plain[labels[-1].end() :])
    return (plain[: labels[-1].start()].strip(), options) if options else (plain, ())


def read_options(text: str) -> tuple[str, ...]:
    """The texts behind (A), (B), ... or A., B., ...: a line each or in one line; nothing when they are not in order."""
    for pattern in (_LINE, _INLINE):
        marks = list(pattern.finditer(text))
        letters = "".join(next(filter(None, mark.groups())) for mark in marks)
        if len(marks) >= 2 and LETTERS.startswith(letters) and not text[: marks[0].start()].strip():
            ends = [mark.start() for mark in marks[1:]] + [len(text)]
            options = tuple(
                text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)
            )
            if all(options):
                return options
    return ()


def read_answer(text: str) -> str:
    """What is answered: ``B`` of ``The answer is B.``, else the text as it is."""
    plain = text.strip()
    if found := _SENTENCE.fullmatch(plain):
        plain = found[1].strip()
    return plain.removesuffix(".").rstrip() or plain


def answer_kind(answer: str, options: Sequence[str]) -> str:
    """Which of ``KINDS`` an answer is."""
    if options:
        return "choice"
    plain = answer.strip().strip("$").strip()
    if plain.casefold() in _YES_NO:
        return "yes/no"
    if parse_number(plain) is not None:
        if plain.endswith("%"):
            return "percent"
        if "/" in plain or "frac" in plain:
            return "fraction"
        return "decimal" if "." in plain or "e" in plain.casefold() else "integer"
    if len(plain) > LONGEST:
        return "text"
    if _LIST.fullmatch(plain):
        return "list"
    return "expression" if _ALGEBRA.search(plain) else "text"
