"""Is the answer right? Typed checks in exact arithmetic (paper, section 3.1: exact match with the ground truth).

Two answers are equal when ``canonical_answer`` gives both the same text. It tries, in this order: the letter of an
option or an option's text, a number (integer, decimal, percent, fraction, mixed number), a list, set or interval of
such (``several``), and normalised text, which is also how yes and no compare. No function here raises on, or is slow
for, any text whatever. What these checks cannot decide, ``open_pairs`` names for a check that knows algebra.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from mstar.core.numerals import parse_number
from mstar.core.records import Grade, Query
from mstar.core.several import Brackets, endless, parse_several

LONGEST = 1000
"""Characters of an answer that are read as LaTeX and normalised; of a longer one only case and spaces are."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

DEEPEST = 3
"""Lists may hold lists so deep; what is deeper is text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """The values of a list, set or interval; a set's are in one order and without repeats.

    ``texts`` are the items as they were written, in the order of ``items``.
    """

    brackets: Brackets
    variable: str
    items: tuple["Value", ...]
    texts: tuple[str, ...] = field(compare=False)


Value = Fraction | str | Several
Pairs = tuple[tuple[str, str], ...]
"""Texts of predicted and true expressions."""

_BOXED = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LETTER = re.compile(
    r"(?:(?:option|choice)\s+)?[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:)]?", re.IGNORECASE
)
_LABELLED = re.compile(r"[(\[]?([A-Za-z])(?:[)\]][.:]?\s*|[.:]\s*|\s+)(\S.*)", re.DOTALL)
_MATH = re.compile(
    r"(\$\$?)((?:[^$\\]|\\.)*)\1"
    r"|\\\(((?:[^\\]|\\[^()])*)\\\)|\\\[((?:[^\\]|\\[^\[\]])*)\\\]",
    re.DOTALL,
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_LATEX = {
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\%": "%",
    r"\$": "$",
    r"\!": "",
    r"^{\circ}": "°",
    r"^\circ": "°",
    r"\left": "",
    r"\right": "",
    "{,}": ",",
}
_REPLACED = re.compile(
    "|".join(re.escape(k) + ("(?![A-Za-z])" if k[-1].isalpha() else "") for k in _LATEX)
)
_THOUSANDS = re.compile(r"(?<=[0-9])\\[,;: ](?=[0-9]{3})")
_SPACING = re.compile(r"\\[,;: ]|~")
_COMMA = re.compile(r" ?, ?")


def extract_answer(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, stripped, or None.

    Braces may nest (``\boxed{\frac{1}{2}}``). None when there is no box, when the last one is empty, or when it never
    closes: a response that was cut off inside its answer has none.
    """
    start = None
    for match in _BOXED.finditer(text):
        start = match.end()
    if start is None:
        return None
    depth = 1
    for match in _BRACE.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if not depth:
                return text[start : match.start()].strip() or None
    return None


def check_answer(
    predicted: str,
    answer: str,
    options: Sequence[str] = (),
    relative_tolerance: float = 0.0,
    decimals: int | None = None,
) -> bool:
    """Whether ``predicted`` says the same as the true ``answer``.

    With ``options``, either may be a letter or an option's text. ``relative_tolerance``, a share of the true answer,
    and ``decimals``, the places that both are rounded to, count between numbers only, and between options only where
    they leave no choice: a prediction that is an option is that option, however close another lies. At 0 and None this
    is ``canonical_answer(predicted) == canonical_answer(answer)``.
    """
    mine, true = _value(predicted, options), _true_value(answer, tuple(options))
    if mine == true:
        return True
    if not relative_tolerance and decimals is None:
        return False
    if not options:
        return _near(mine, true, relative_tolerance, decimals)
    values = _option_values(tuple(options))
    near = {v for v in values if _near(mine, v, relative_tolerance, decimals)}
    return mine not in values and near == {true}


def open_pairs(
    predicted: str,
    answer: str,
    options: Sequence[str] = (),
    relative_tolerance: float = 0.0,
    decimals: int | None = None,
) -> Pairs:
    """What is left to ask of two answers that ``check_answer`` finds different: expressions that must all be equal.

    Empty where these checks are the last word: between two numbers, where the prediction is another option, and
    between lists of different shape or with items that differ for certain. Lists are compared item by item.
    """
    true = _true_value(answer, tuple(options))
    mine, shown = _value(predicted, options), _plain(answer)
    if options:
        values = _option_values(tuple(options))
        if mine in values or true not in values:
            return ()
        shown = _plain(options[values.index(true)])

    def same(one: Value, other: Value) -> bool:
        return _near(one, other, relative_tolerance, decimals)

    return _pairs((mine, _plain(predicted)), (true, shown), same) or ()


def canonical_answer(answer: str, options: Sequence[str] = ()) -> str:
    """The one text of all answers equal to this one: what votes are counted under."""
    return _canonical(_value(answer, options))


def grade(
    text: str, query: Query, relative_tolerance: float = 0.0, decimals: int | None = None
) -> Grade:
    """The final answer of a response to ``query``, and whether it is right."""
    answer = extract_answer(text)
    correct = answer is not None and check_answer(
        answer, query.answer, query.options, relative_tolerance, decimals
    )
    return Grade(answer=answer, correct=correct)


def unusable_answer(answer: str, options: Sequence[str] = ()) -> str | None:
    """Why no response could be fairly graded against this true answer, or None when it is fine."""
    if not _plain(answer):
        return f"answer {answer!r} is empty"
    return _unusable_choice(answer, options) if options else None


def _unusable_choice(answer: str, options: Sequence[str]) -> str | None:
    if len(options) > len(LETTERS):
        return f"{len(options)} options, at most {len(LETTERS)} have letters"
    values = _option_values(tuple(options))
    if "" in values:
        return f"option {LETTERS[values.index('')]} is empty"
    shown = ", ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, options, strict=False))
    value = _value(answer, options)
    same = [letter for letter, other in zip(LETTERS, values, strict=False) if other == value]
    if not same:
        return f"answer {answer!r} is neither the letter nor the text of an option: {shown}"
    if len(same) > 1:
        return f"options {' and '.join(same)} are the same answer: {shown}"
    named = _lettered(_plain(answer), values)
    if named is not None and named != value:
        return f"answer {answer!r} is the letter of one option and the text of another: {shown}"
    return None


def _value(answer: str, options: Sequence[str]) -> Value:
    """What an answer means. An option's text comes before a letter: where both fit, the text was written."""
    plain = _plain(answer)
    value = _read(plain)
    if not options:
        return value
    values = _option_values(tuple(options))
    if value in values:
        return value
    named = _lettered(plain, values)
    return value if named is None else named


def _lettered(plain: str, values: tuple[Value, ...]) -> Value | None:
    """The option that ``B``, ``(B)``, ``b)``, ``B.``, ``option B`` or ``B: its text`` names, or None.

    The text after a letter must be that option's: "A. or maybe B" names none, so naming several never pays.
    """
    if len(plain) > LONGEST:
        return None
    match = _LETTER.fullmatch(plain) or _LABELLED.fullmatch(plain)
    if match is None:
        return None
    index = LETTERS.index(match[1].upper())
    if index >= len(values):
        return None
    said = match[2] if match.re is _LABELLED else None
    return values[index] if said is None or _read(_plain(said)) == values[index] else None


# Remembered because all responses to a query come together, and share its answer and its options.
@lru_cache(maxsize=256)
def _true_value(answer: str, options: tuple[str, ...]) -> Value:
    return _value(answer, options)


@lru_cache(maxsize=256)
def _option_values(options: tuple[str, ...]) -> tuple[Value, ...]:
    return tuple(_read(_plain(option)) for option in options)


def _read(plain: str, depth: int = 0) -> Value:
    number = parse_number(plain)
    if number is not None:
        return number
    if len(plain) <= LONGEST:
        if depth < DEEPEST and (several := _several(plain, depth)) is not None:
            return several
        if (infinite := endless(plain)) is not None:
            return infinite
        if not plain.isascii():
            # Not NFKC, which makes 52 of 5²; and bounded, because normalising can take quadratic time.
            plain = unicodedata.normalize("NFC", plain)
    return _COMMA.sub(", ", plain.casefold()) if "," in plain else plain.casefold()


def _several(plain: str, depth: int) -> Several | None:
    written = parse_several(plain)
    if written is None:
        return None
    pairs = [(_read(_plain(text), depth + 1), text) for text in written.items]
    if written.brackets == ("{", "}"):
        distinct = {_canonical(value): (value, text) for value, text in reversed(pairs)}
        pairs = [distinct[name] for name in sorted(distinct)]
    return Several(
        brackets=written.brackets,
        variable=written.variable,
        items=tuple(value for value, _ in pairs),
        texts=tuple(text for _, text in pairs),
    )


def _canonical(value: Value) -> str:
    if isinstance(value, str):
        return f"text:{value}"
    if isinstance(value, Fraction):
        return f"number:{value}"
    inner = [_canonical(item) for item in value.items]
    return f"several:{value.variable}{''.join(value.brackets)}{inner}"


def _plain(answer: str) -> str:
    """Without what does not change the meaning: spaces, a final period, math delimiters, text commands, spacing."""
    plain = " ".join(answer.split())
    if len(plain) > LONGEST:
        return plain
    plain = plain.rstrip(". ").replace("\u2212", "-")
    if not plain.isalnum() and any(mark in plain for mark in "\\$~{"):
        plain = _without_latex(plain)
    return plain


def _without_latex(plain: str) -> str:
    before = None
    while plain != before:  # each turn but the last makes it shorter
        before = plain
        if math := _MATH.fullmatch(plain):
            plain = math[2] or math[3] or math[4] or ""
        plain = _TEXT.sub(r"\1", plain).strip().rstrip(". ")
    plain = _THOUSANDS.sub(",", plain)
    plain = _REPLACED.sub(lambda match: _LATEX[match[0]], plain)
    return " ".join(_SPACING.sub(" ", plain).split()).rstrip(". ")


def _near(mine: Value, true: Value, tolerance: float, decimals: int | None) -> bool:
    """Whether two values are equal up to how far numbers may be apart; so are lists whose items are, each with its."""
    if mine == true:
        return True
    if isinstance(mine, Fraction) and isinstance(true, Fraction):
        if decimals is not None and round(mine, decimals) == round(true, decimals):
            return True
        # Through its text: 0.03 means three hundredths, of which the float falls short.
        return abs(mine - true) <= Fraction(str(tolerance)) * abs(true)
    if isinstance(mine, Several) and isinstance(true, Several) and _alike(mine, true):
        return all(
            _near(one, other, tolerance, decimals)
            for one, other in zip(mine.items, true.items, strict=True)
        )
    return False


def _alike(mine: Several, true: Several) -> bool:
    shapes = [(several.brackets, several.variable, len(several.items)) for several in (mine, true)]
    return shapes[0] == shapes[1]


def _pairs(
    mine: tuple[Value, str], true: tuple[Value, str], same: Callable[[Value, Value], bool]
) -> Pairs | None:
    """The expressions that must be equal for these to be; None when they are not, whatever expressions say."""
    left, right = mine[0], true[0]
    if same(left, right):
        return ()
    if isinstance(left, Several) and isinstance(right, Several):
        return _item_pairs(mine, true, same)
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return None
    for one, other in ((left, right), (right, left)):
        # Of a list and an expression only these two can be the same: "1, -1" and "\\pm 1".
        if isinstance(one, Several) and not (
            isinstance(other, str) and r"\pm" in other and one.brackets in {("", ""), ("{", "}")}
        ):
            return None
    return ((mine[1], true[1]),)


def _item_pairs(
    mine: tuple[Value, str], true: tuple[Value, str], same: Callable[[Value, Value], bool]
) -> Pairs | None:
    left, right = mine[0], true[0]
    assert isinstance(left, Several)
    assert isinstance(right, Several)
    if not _alike(left, right):
        return None
    ours, theirs = (list(zip(s.items, map(_plain, s.texts), strict=True)) for s in (left, right))
    if left.brackets == ("{", "}"):
        common = set(left.items) & set(right.items)
        ours, theirs = ([i for i in items if i[0] not in common] for items in (ours, theirs))
        if len(ours) != 1:  # which goes with which, only the algebra can say
            return ((mine[1], true[1]),)
    found: list[tuple[str, str]] = []
    for one, other in zip(ours, theirs, strict=True):
        pairs = _pairs(one, other, same)
        if pairs is None:
            return None
        found += pairs
    return tuple(found)
