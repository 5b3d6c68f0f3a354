r"""Lists, tuples, sets, intervals and inequalities as people and models write them: structure only.

``parse_several`` says which brackets hold which texts; what the texts mean is for ``answers`` to read. An inequality in
one variable is the interval it describes: ``1 < x \le 2`` is ``(1, 2]``.
"""

import re
from dataclasses import dataclass, field

Brackets = tuple[str, str]

INFINITY = r"\infty"
OPENING = {"(": ")", "[": "]"}
MANY = 64
"""Items a list may have; a longer one is text."""

_SIGNS = re.compile(
    r"\\(?:leqslant|leq|le|lt|geqslant|geq|ge|gt)(?![A-Za-z])|[\u2264\u2265]|<=|>=|=<"
)
_SIGN = {
    "leqslant": "<=",
    "leq": "<=",
    "le": "<=",
    "lt": "<",
    "geqslant": ">=",
    "geq": ">=",
    "ge": ">=",
    "gt": ">",
}
_COMPARED = re.compile(r"([^<>=]+)(<=|>=|<|>)([^<>=]+)(?:(<=|>=|<|>)([^<>=]+))?")
_VARIABLE = re.compile(r"[A-Za-z]|\\(?:theta|alpha|beta|lambda|mu)")
_MEMBER = re.compile(r"([A-Za-z])\s*(?:\\in(?![A-Za-z])|\u2208)\s*([(\[].*)", re.DOTALL)
_ENDLESS = re.compile(r"([-+]?)\s*(?:\\infty|\u221e|inf(?:inity|ty)?)", re.IGNORECASE)
_MARKS = re.compile(r"[,;<>\u2264\u2265\u2208]|\\(?:l[et]|g[et]|in)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Texts between brackets, in order.

    ``brackets`` are as written, both empty for a bare list; a set's are ``{`` and ``}``. ``variable`` is that of an
    inequality in another variable than ``x``, which alone stands for itself; else it is empty.
    """

    brackets: Brackets
    items: tuple[str, ...]
    variable: str = field(default="")


def parse_several(text: str) -> Written | None:
    r"""The parts of a list, set, tuple, interval or inequality, or None when the text is none of them.

    Read: ``1, 2``, ``[1, 2, 3]``, ``(1, 2]``, ``\{1, 2\}``, ``x \in [1, 2)``, ``x > 3``, ``1 \le x < 2``.
    Square brackets around other than two items are a list's and so are left out: ``[1, 2, 3]`` is ``1, 2, 3``.
    Expects that ``answers`` has removed math delimiters and ``\left`` and ``\right``. Takes linear time.
    """
    if _MARKS.search(text) is None:
        return None
    if member := _MEMBER.fullmatch(text):
        inner = _bracketed(member[2])
        return None if inner is None or len(inner.items) != 2 else _named(member[1], inner)
    return _bracketed(text) or _inequality(text)


def endless(text: str) -> str | None:
    r"""``\infty`` or ``-\infty`` for whatever way infinity is written, or None."""
    match = _ENDLESS.fullmatch(text)
    return None if match is None else ("-" if match[1] == "-" else "") + INFINITY


def _bracketed(text: str) -> Written | None:
    inner, brackets = text, ("", "")
    if text.startswith("\\{") and text.endswith("\\}"):
        inner, brackets = text[2:-2], ("{", "}")
    elif text[:1] in {"(", "[", "{"} and text[-1:] in {")", "]", "}"} and _encloses(text):
        inner, brackets = text[1:-1], (text[0], text[-1])
    items = _split(inner)
    if items is None or len(items) > MANY or not all(items):
        return None
    if brackets == ("{", "}"):
        return Written(brackets=brackets, items=items)
    if len(items) == 1 or ("{" in brackets or "}" in brackets):
        return None
    if brackets == ("[", "]") and len(items) != 2:
        brackets = ("", "")
    mixed = brackets in {("(", "]"), ("[", ")")}
    return None if mixed and len(items) != 2 else Written(brackets=brackets, items=items)


def _encloses(text: str) -> bool:
    """Whether the first bracket is closed by the last character and not before: not so in ``(1, 2), (3, 4)``."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth <= 0:
            return index == len(text) - 1 and depth == 0
    return False


def _split(text: str) -> tuple[str, ...] | None:
    """At commas (or, where there are any, semicolons) outside of brackets; None when those do not pair."""
    mark = ";" if ";" in text else ","
    items, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return None
        if char == mark and depth == 0:
            items.append(text[start:index].strip())
            start = index + 1
    return (*items, text[start:].strip()) if depth == 0 else None


def _inequality(text: str) -> Written | None:
    text = _SIGNS.sub(_plain_sign, text)
    match = _COMPARED.fullmatch(text)
    if match is None:
        return None
    left, sign, middle, second, right = (part and part.strip() for part in match.groups())
    if second is not None:
        if sign[0] != second[0] or not _VARIABLE.fullmatch(middle):
            return None
        low, high = (left, right) if sign[0] == "<" else (right, left)
        signs = (sign, second) if sign[0] == "<" else (second, sign)
        return _interval(middle, (low, "=" in signs[0]), (high, "=" in signs[1]))
    if _VARIABLE.fullmatch(middle):  # 3 < x is x > 3
        left, middle, sign = middle, left, sign.translate(str.maketrans("<>", "><"))
    if not _VARIABLE.fullmatch(left) or _VARIABLE.fullmatch(middle):
        return None
    closed = "=" in sign
    if sign[0] == "<":
        return _interval(left, ("-" + INFINITY, False), (middle, closed))
    return _interval(left, (middle, closed), (INFINITY, False))


def _plain_sign(match: re.Match[str]) -> str:
    found = match[0]
    if found.startswith("\\"):
        return _SIGN[found[1:]]
    return {"\u2264": "<=", "\u2265": ">=", "=<": "<="}.get(found, found)


def _interval(variable: str, low: tuple[str, bool], high: tuple[str, bool]) -> Written | None:
    if not low[0] or not high[0]:
        return None
    brackets = ("[" if low[1] else "(", "]" if high[1] else ")")
    return _named(variable, Written(brackets=brackets, items=(low[0], high[0])))


def _named(variable: str, written: Written) -> Written:
    # Two inequalities in two variables may be two options of one question, so only x is left out.
    name = "" if variable in {"x", "X"} else variable.lower()
    return Written(brackets=written.brackets, items=written.items, variable=name)
