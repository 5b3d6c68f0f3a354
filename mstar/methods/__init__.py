"""Training methods (paper, table 1 and section 3.2), one module a method.

A module's name is the method's name in a spec, and the module defines ``METHOD``; nothing else lists it. Iterations
count from 1, and checkpoint 0 is what evolving starts from: the warm-up's policy, or the base without one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mstar.core.registry import modules_of, named


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How an iteration's training begins, and what it learns from.

    ``title`` is for people. ``weights`` says of iteration t whose checkpoint it starts from, ``optimizer`` whose
    optimizer, schedule and step count go on, None for fresh ones: there a method restarts. A method that learns from
    ``answers`` trains on the true ones in a single pass from the base, and samples nothing.
    """

    title: str
    weights: Callable[[int], int]
    optimizer: Callable[[int], int | None]
    learns_from: Literal["responses", "answers"] = "responses"


@cache
def methods() -> dict[str, Method]:
    """All methods by name."""
    return modules_of(__name__, "METHOD", Method)


def find_method(name: str) -> Method:
    """The method called ``name``; ``ValueError`` when there is none, naming those there are."""
    return named(methods(), name, "training method")
