"""HTML and SVG that are safe by construction: whatever is not ``Html`` already is escaped."""

import html
import json
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})


class Html(str):
    """Text that is HTML already. Made by the functions here and never from data."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
Attribute = str | float | int | bool | None


def el(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element. A child that is not ``Html`` is escaped, None is left out, an iterable gives its items.

    An attribute's name loses a trailing underscore and has hyphens for the others (``class_``, ``stroke_width``);
    None and False leave it out, True gives it no value.
    """
    start = f"<{name}{''.join(_attribute(*item) for item in attributes.items())}>"
    if name in VOID:
        return Html(start)
    return Html(f"{start}{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Children one after another, with nothing around them."""
    return Html("".join(map(_text, children)))


def json_script(identity: str, value: Any) -> Html:
    """A value for scripts to read, in an element that runs nothing and that no text can close."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{html.escape(identity)}">{text}</script>')


def number(value: float) -> str:
    """A coordinate or length: at most two decimals, no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return html.escape(_printable(child), quote=False)
    if isinstance(child, int | float):
        return number(child)
    return join(*child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = value if isinstance(value, str) else number(value)
    return f' {name}="{html.escape(_printable(text))}"'


def _printable(text: str) -> str:
    """Without the characters that HTML forbids even as references (NUL and the like), each shown as U+FFFD."""
    return "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in text)
