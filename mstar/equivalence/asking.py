r"""What is worth asking an algebra system, and in what LaTeX: everything it is known to misread is kept from it.

math-verify reads ``7:30`` as 7, ``50%`` as 50 and as 0.5, words as products of letters, of a list outside ``$`` its
last number, of ``2√3`` the 2, and of ``3 = 5`` the 5. So only what is an expression through and through is asked.
"""

import re
from dataclasses import dataclass

from mstar.core.answers import check_answer, open_pairs

LONGEST = 200
"""Characters of an expression that is asked about."""

PAIRS = 16
"""Expressions asked about in one question: a list of more is as it was found by the typed checks."""

_NAMES = (
    "frac dfrac tfrac sqrt cdot times div pm pi infty sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh "
    "log ln exp alpha beta gamma delta epsilon theta lambda mu phi omega rho sigma tau le leq ge geq lt gt ne neq "
    "left right cup cap"
)
COMMANDS = frozenset(_NAMES.split())
"""LaTeX commands that are read right; ``\\angle`` or ``\\triangle`` would be a factor like any other."""

_FUNCTIONS = re.compile(r"(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|cot|log|ln|exp)(?![A-Za-z])")
_UNICODE = str.maketrans(
    {
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "÷": r"\div ",
        "π": r"\pi ",
        "∞": r"\infty ",
        "±": r"\pm ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "²": "^{2}",
        "³": "^{3}",
        "\u03b8": r"\theta ",
        "\u03b1": r"\alpha ",
        "\u03b2": r"\beta ",
        "\u2212": "-",
        "\u2013": "-",
    }
)
_ROOT = re.compile(r"(?:√|\\sqrt(?=\s*\())\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))")
_RAISED = re.compile(r"([\^_])\s*(?:\(([^()]*)\)|(-?\d+))")
_CHARACTERS = re.compile(r"[0-9A-Za-z\\{}()\[\]+\-*/^_=<>|!.,\s]*")
_COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)
_SPACES = frozenset(" ,;!{}")
_NAMELIKE = re.compile(r"[A-Za-z][0-9]|[0-9]\s+[0-9]")
"""``H2`` is no 2H, and ``1 2`` neither 12 nor 2."""

_AMBIGUOUS = re.compile(
    r"/\s*(?:[0-9.]+|[A-Za-z])\s*(?:[A-Za-z(]|\\(?!cdot|times|div))|\^\s*(?:\{[^{}]*\}|\w)\s*\^"
)
"""``1/2x`` is x/2 to one and 1/(2x) to another, and ``2^3^2`` 512 or 64."""

_WORD = re.compile(r"[A-Za-z]{2,}")
_ALGEBRA = re.compile(r"[abcxyz]{2,3}")
_OPERATOR = re.compile(r"[-+*/^=<>]|\\")
_ASSIGNED = re.compile(r"(?:[A-Za-z](?:_\{?\w\}?)?'?|[A-Za-z]\([A-Za-z]\)|\\theta)\s*=([^=<>]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Pairs of expressions in LaTeX, predicted and true, all of which are to be equal.

    Decimals count as equal within ``relative_tolerance`` of the true value, or when both are rounded to ``decimals``.
    """

    pairs: tuple[tuple[str, str], ...]
    relative_tolerance: float = 0.0
    decimals: int | None = None


def question(
    predicted: str,
    answer: str,
    options: tuple[str, ...] = (),
    relative_tolerance: float = 0.0,
    decimals: int | None = None,
) -> Question | None:
    """What would show that two answers, different to the typed checks, are the same; None when nothing would.

    Of ``x = 5`` against ``5``, what stands behind the sign is compared, by the typed checks first.
    """
    asked: list[tuple[str, str]] = []
    pairs = open_pairs(predicted, answer, options, relative_tolerance, decimals)
    for mine, true in pairs:
        left, right = _alone(mine, true), _alone(true, mine)
        if (left, right) != (mine, true):
            if check_answer(left, right, (), relative_tolerance, decimals):
                continue
            inner = open_pairs(left, right, (), relative_tolerance, decimals)
        else:
            inner = ((mine, true),)
        if any(("=" in one) != ("=" in other) for one, other in inner):
            return None  # of "3 = 5" the library would take the 5
        written = [(as_latex(one), as_latex(other)) for one, other in inner]
        sayable = [(one, other) for one, other in written if one is not None and other is not None]
        if not sayable or len(sayable) < len(written):
            return None
        asked += sayable
    if not pairs or len(asked) > PAIRS:
        return None
    return Question(pairs=tuple(asked), relative_tolerance=relative_tolerance, decimals=decimals)


def as_latex(text: str) -> str | None:
    r"""An expression as LaTeX to be put between ``$``, or None when it is none, or none that is surely read right.

    ``2√3`` becomes ``2\sqrt{3}``, ``x^10`` ``x^{10}``, ``sqrt(2)`` ``\sqrt{2}``. A word, a unit, a time, a percentage,
    a single letter, and a command that is not known give None.
    """
    if len(text) > LONGEST:
        return None
    text = _FUNCTIONS.sub(r"\\\1", text)
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text).translate(_UNICODE)
    text = _RAISED.sub(lambda m: f"{m[1]}{{{m[2] or m[3]}}}", text).strip()
    if not _CHARACTERS.fullmatch(text) or not _balanced(text):
        return None
    commands = _COMMAND.findall(text)
    if any(name not in COMMANDS and name not in _SPACES for name in commands):
        return None
    letters = _COMMAND.sub("; ", text)
    if _NAMELIKE.search(letters) or _AMBIGUOUS.search(text):
        return None
    operators = _OPERATOR.search(text) is not None
    if any(not (operators and _ALGEBRA.fullmatch(word)) for word in _WORD.findall(letters)):
        return None
    if text.count("=") > 1 or not (operators or any(char.isdigit() for char in text)):
        return None
    return text


def _alone(text: str, other: str) -> str:
    """What a name is said to equal, when the other side is no equation; else the text."""
    match = _ASSIGNED.fullmatch(text.strip())
    return match[1].strip() if match and "=" not in other else text


def _balanced(text: str) -> bool:
    depth = 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0
