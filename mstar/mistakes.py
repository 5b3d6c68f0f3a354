"""What is wrong with a file that a person wrote, a line a mistake: the key, what was expected, what was found."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

_KINDS = {
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "dict_type": "keys and values",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text (in quotes where it looks like a number)",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
}


def mistakes(
    error: ValidationError, root: type[BaseModel], top: str, *, under: str = ""
) -> list[str]:
    """One line for each mistake that ``root`` found; ``top`` names the whole, where a mistake has no key of its own.

    Keys begin with ``under``, where ``root`` is a part of what the person wrote.
    """
    return [f"  {_key(item, top, under)}: {_said(item, root)}" for item in error.errors()]


def nearest(wrong: str, known: Sequence[str], which: str) -> str:
    """A hint to put behind a name that is unknown: the nearest known one, or all of them after ``which``."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; {which} {', '.join(known)}"


def half_address(text: str) -> str | None:
    """The scheme, colon included, of an address that lacks its slashes (``s3:/bucket``), else None."""
    found = re.match(r"(s3|gs|https?|file):(?!//)", text)
    return found[0] if found else None


def kind_of(value: object) -> str:
    """What stands where keys and values should: in words for people who write YAML."""
    if value is None:
        return "nothing"
    return {"list": "a list", "str": "text"}.get(type(value).__name__, repr(value))


def _key(item: Any, top: str, under: str) -> str:
    return under + ".".join(map(str, item["loc"])) if item["loc"] else top


def _said(item: Any, root: type[BaseModel]) -> str:
    kind = item["type"]
    if kind == "extra_forbidden":
        return f"unknown key{_hint(item['loc'], root)}"
    if kind == "missing":
        return "required, but not there"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind in _KINDS:
        expected = f"should be {_KINDS[kind]}"
    elif kind == "literal_error":
        expected = f"should be {item['ctx']['expected']}"
    else:
        expected = re.sub(r"^[A-Z]\w* should", "should", item["msg"])
        expected = re.sub(r" after validation, not \d+$", "", expected)
    return f"{expected}, found {item['input']!r}"


def _hint(path: tuple[str | int, ...], root: type[BaseModel]) -> str:
    """A hint for an unknown key: the nearest valid one, or all of them."""
    model: type[BaseModel] | None = root
    for name in path[:-1]:
        if isinstance(name, str):  # a number is a place in a list, of which all are alike
            field = model.model_fields.get(name) if model else None
            model = _model_of(field.annotation) if field else None
    return nearest(str(path[-1]), list(model.model_fields), "valid keys are") if model else ""


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
