"""Numbers as people and models write them, read exactly.

``parse_number`` never guesses and never takes long: what is not wholly one number in ASCII digits, of bounded size, is
None, and so remains text for ``answers``.
"""

import re
from fractions import Fraction

LONGEST = 200
"""Characters a number may have; a longer one is text. Bounds every conversion below."""

_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+])? \s*
    (?:
        (?P<whole>[0-9]+) (?: \s+ (?P<a>[0-9]+) \s*/\s* (?P<b>[0-9]+)
                            | \s* \\frac\s*\{{\s*(?P<c>[0-9]+)\s*\}}\s*\{{\s*(?P<d>[0-9]+)\s*\}} )
      | (?P<over>{_DECIMAL}) \s*/\s* (?P<under>{_DECIMAL})
      | \\frac\s*\{{\s*(?P<top>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>-?{_DECIMAL})\s*\}}
      | \\frac\s*(?P<p>[0-9])\s*(?P<q>[0-9])
      | (?P<decimal>{_DECIMAL})
        (?: [eE](?P<e>[-+]?[0-9]{{1,3}})
          | \s*(?:\\times|\\cdot|\u00d7)\s*10\s*\^\s*(?:(?P<f>-?[0-9]{{1,3}})|\{{\s*(?P<g>-?[0-9]{{1,3}})\s*\}}) )?
    )
    \s* (?P<percent>%)?
    """,
    re.VERBOSE,
)


def parse_number(text: str) -> Fraction | None:
    r"""The exact value of ``text``, or None when it is not one number.

    Read: ``7``, ``-7``, ``+7``, ``1,234.50`` (commas only where thousands end), ``.5``, ``1e-3``, ``3 \times 10^5``,
    ``3/4``, ``\frac{3}{4}``, ``\frac34``, mixed numbers with a proper fraction (``1 1/2``, ``1\frac{1}{2}``), each
    with an optional percent sign. A percentage is the number it denotes: ``50%`` is one half.

    Not read: ``7:30``, ``1/0``, ``1,2``, ``nan``, digits of other scripts, units, exponents of four digits or more,
    and anything of more than ``LONGEST`` characters. Expects that ``answers`` has replaced the Unicode minus and LaTeX
    spacing.
    """
    if len(text) > LONGEST:
        return None
    if _INTEGER.fullmatch(text):
        return Fraction(int(text))
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    ratio = _ratio(match)
    if ratio is None:
        return None
    over, under = ratio
    if match["sign"] == "-":
        over = -over
    return Fraction(over, under * 100 if match["percent"] else under)


def _ratio(match: re.Match[str]) -> tuple[int, int] | None:
    """Numerator and denominator, which plain integers compute several times faster than fractions do."""
    if match["decimal"] is not None:
        over, under = _decimal(match["decimal"])
        exponent = int(match["e"] or match["f"] or match["g"] or 0)
        return (over * 10**exponent, under) if exponent >= 0 else (over, under * 10**-exponent)
    if match["whole"] is not None:
        over, under = int(match["a"] or match["c"]), int(match["b"] or match["d"])
        # An improper part ("1 5/2") is more likely two numbers, or a slip, than one.
        return (int(match["whole"]) * under + over, under) if over < under else None
    top, top_scale = _decimal(match["over"] or match["top"] or match["p"])
    bottom, bottom_scale = _decimal(match["under"] or match["bottom"] or match["q"])
    return (top * bottom_scale, bottom * top_scale) if bottom else None


def _decimal(text: str) -> tuple[int, int]:
    whole, _, part = text.replace(",", "").partition(".")
    return int(whole + part), 10 ** len(part)
