"""Questions of graded difficulty about a picture of four digits.

A question starts at a cell and composes one to four operations: "Take top-left, add
bottom-right, double it." Every intermediate value lies in 0..30. Half of the questions are
multiple choice; the answer to those is the *value* of an option, and one distractor is, where
possible, an intermediate value: what a solution that stops too early would answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mstar.demo.digits import CELL_NAMES, Picture, draw_picture

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

Kind = Literal["multiple_choice", "free_form"]
Operator = Literal["add", "subtract", "double"]

MAX_VALUE = 30
"""The largest value that a chain may reach; the smallest is 0."""

LEVELS: tuple[int, ...] = (1, 2, 3, 4)
LEVEL_WEIGHTS: tuple[float, ...] = (0.25, 0.30, 0.25, 0.20)
OPTION_COUNT = 4

_OPERATORS: tuple[Operator, ...] = ("add", "subtract", "double")
_OPERATOR_WEIGHTS = (0.50, 0.35, 0.15)
_SECOND_WORDING = 0.3
_NEAR = (-8, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 8)
_WORDS: tuple[dict[Operator, str], ...] = (
    {"add": ", add {}", "subtract": ", subtract {}", "double": ", double it"},
    {"add": ", plus {}", "subtract": ", minus {}", "double": ", then doubled"},
)
_OPENINGS = ("Take {}", "Find {}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation on the running value; `cell` is None for a doubling."""

    operator: Operator
    cell: int | None

    def apply(self, value: int, digits: Sequence[int]) -> int:
        """Return the value after this operation, given the digits of the picture."""
        operand = value if self.cell is None else digits[self.cell]
        return value - operand if self.operator == "subtract" else value + operand


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with everything that it was made from; `options` is empty when free-form."""

    picture: Picture
    start: int
    operations: tuple[Operation, ...]
    text: str
    options: tuple[str, ...]
    answer: str

    @property
    def level(self) -> int:
        """The number of operations, 1 to 4."""
        return len(self.operations)

    @property
    def kind(self) -> Kind:
        """Whether the question offers options."""
        return "multiple_choice" if self.options else "free_form"

    def values(self) -> tuple[int, ...]:
        """Return the running value after the start and after each operation."""
        return chain_values(self.start, self.operations, self.picture.digits)


def chain_values(
    start: int, operations: Sequence[Operation], digits: Sequence[int]
) -> tuple[int, ...]:
    """Return the running values of a chain: the start's digit, then one after each operation."""
    values = [digits[start]]
    for operation in operations:
        values.append(operation.apply(values[-1], digits))
    return tuple(values)


def draw_question(rng: random.Random, pool: Sequence[int]) -> Question:
    """Draw a picture from the pool of source digits and a question about it."""
    picture = draw_picture(rng, pool)
    level = rng.choices(LEVELS, LEVEL_WEIGHTS)[0]
    start, operations = _draw_chain(rng, picture.digits, level)
    values = chain_values(start, operations, picture.digits)
    wording = int(rng.random() < _SECOND_WORDING)
    options = _draw_options(rng, values) if rng.random() < 0.5 else ()
    return Question(
        picture=picture,
        start=start,
        operations=operations,
        text=_phrase(start, operations, wording),
        options=options,
        answer=str(values[-1]),
    )


def _draw_chain(
    rng: random.Random, digits: Sequence[int], level: int
) -> tuple[int, tuple[Operation, ...]]:
    """Draw a start and operations until every value is in range (most draws are)."""
    while True:
        start = last = rng.randrange(len(CELL_NAMES))
        operations: list[Operation] = []
        for _ in range(level):
            operator = rng.choices(_OPERATORS, _OPERATOR_WEIGHTS)[0]
            if operator == "double":
                operations.append(Operation(operator=operator, cell=None))
                continue
            last = rng.choice([cell for cell in range(len(CELL_NAMES)) if cell != last])
            operations.append(Operation(operator=operator, cell=last))
        doubles = sum(operation.operator == "double" for operation in operations)
        values = chain_values(start, operations, digits)
        if doubles <= 1 and min(values) >= 0 and max(values) <= MAX_VALUE:
            return start, tuple(operations)


def _draw_options(rng: random.Random, values: Sequence[int]) -> tuple[str, ...]:
    truth = values[-1]
    # The latest intermediate value that is not the answer: the prize of stopping one step early.
    options = [truth, *[value for value in reversed(values[:-1]) if value != truth][:1]]
    while len(options) < OPTION_COUNT:
        value = min(MAX_VALUE, max(0, truth + rng.choice(_NEAR)))
        if value not in options:
            options.append(value)
    rng.shuffle(options)
    return tuple(str(value) for value in options)


def _phrase(start: int, operations: Sequence[Operation], wording: int) -> str:
    text = _OPENINGS[wording].format(CELL_NAMES[start])
    for operation in operations:
        name = "" if operation.cell is None else CELL_NAMES[operation.cell]
        text += _WORDS[wording][operation.operator].format(name)
    return text + "."
