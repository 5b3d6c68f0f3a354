"""Axes whose values are modules: a package's modules, each with what it defines, found by listing the package."""

import difflib
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

T = TypeVar("T")


def modules_of(package: str, name: str, kind: type[T]) -> dict[str, T]:
    """What each module of ``package`` defines as ``name``, by the module's own name, sorted.

    Raises ``TypeError`` when a module has none, or one that is no ``kind``: such a module belongs elsewhere.
    """
    found: dict[str, T] = {}
    for module in sorted(entry.name for entry in iter_modules(import_module(package).__path__)):
        value = getattr(import_module(f"{package}.{module}"), name, None)
        if not isinstance(value, kind):
            raise TypeError(f"{package}.{module} must define {name}, a {kind.__name__}")
        found[module] = value
    return found


def named(known: Mapping[str, T], name: str, what: str) -> T:
    """The value called ``name``; ``ValueError`` with the nearest name when there is none."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no {what} is called {name!r}; there are {', '.join(map(repr, known))}{hint}")
