"""The planted corpus: solutions, good and faulty mixed, that the base model is pre-trained on.

This is where the demo's latent skill comes from, and it is disclosed on purpose. The corpus
teaches every skill that a full solution needs, but shows a full solution as the minority
behaviour: a solution is often a bare guess, often gives up after an operation that is not the
last, and now and then takes a wrong cell, a wrong operation, or miscalculates.

A model trained on this answers poorly when greedy, and often well in one of sixteen samples.
What the self-evolving loop does afterwards is to *select* the good behaviour, from images,
questions and final answers alone; nothing in this module is used after pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mstar.demo.digits import CELL_NAMES
from mstar.demo.prompts import format_prompt
from mstar.demo.questions import MAX_VALUE, Operation, Question

if TYPE_CHECKING:
    import random

Style = Literal["named", "told", "terse"]

READ_PROMPT = "Read"
COMPUTE_PROMPT = "Compute"

_DRILL_LENGTH = 6
STYLES: tuple[Style, ...] = ("named", "told", "terse")
"""Three wordings of a step, equally good."""

_SLIPS = (-2, -1, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """What is planted, as probabilities.

    The first four fields share out the corpus; the rest is about one solution.
    """

    asked: float = 0.60
    """Questions as the loop asks them."""
    hinted: float = 0.18
    """Questions whose prompt also holds the answer."""
    computing: float = 0.17
    """Arithmetic drills that ignore the picture."""
    reading: float = 0.05
    """Reading drills: the four digits, in order."""

    guess: float = 0.40
    """An answer without a step, drawn from the options or from 0..30."""
    stop_first: float = 0.55
    """Giving up after the first operation although more are due."""
    stop_later: float = 0.40
    """Giving up after a later operation although more are due."""
    wrong_cell: float = 0.04
    wrong_operator: float = 0.04
    slip: float = 0.02
    """A wrong result of a right calculation."""
    styles: tuple[float, float, float] = (0.55, 0.30, 0.15)
    """How often a solution is worded in each of `STYLES`."""

    copy_hint: float = 0.30
    """With a hint: the answer alone, copied."""
    force_hint: float = 0.50
    """With a hint: when the steps went wrong, the hint as the answer nonetheless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example of the corpus: the user's text and the response, without the end token."""

    prompt: str
    response: str


@dataclass(slots=True)
class _Chain:
    """A solution being written: its text so far, the running value, whether all is right."""

    text: str
    value: int
    sound: bool


def draw_sample(question: Question, mixture: Mixture, rng: random.Random) -> Sample:
    """Draw one example of the planted corpus about this question's picture."""
    weights = (mixture.asked, mixture.hinted, mixture.computing, mixture.reading)
    task = rng.choices(("asked", "hinted", "computing", "reading"), weights)[0]
    if task == "asked":
        prompt = format_prompt(question.text, question.options)
        return Sample(prompt=prompt, response=write_solution(question, mixture, rng))
    if task == "hinted":
        prompt = format_prompt(question.text, question.options, hint=question.answer)
        return Sample(prompt=prompt, response=write_hinted_solution(question, mixture, rng))
    if task == "computing":
        lines = "".join(_drill_line(rng) for _ in range(_DRILL_LENGTH))
        return Sample(prompt=COMPUTE_PROMPT, response=lines)
    return Sample(prompt=READ_PROMPT, response=read_aloud(question))


def step_wordings(question: Question) -> tuple[frozenset[str], ...]:
    """For the start, each operation and the answer: every wording of that step in a valid rationale of the question.

    The terse style has no step for the start; a step is given without the line break that ends it.
    """
    digits, values = question.picture.digits, question.values()
    start = (_start_step(style, question.start, values[0]) for style in STYLES)
    steps = [frozenset(text.strip() for text in start if text)]
    for operation, before, after in zip(question.operations, values, values[1:], strict=False):
        worded = (
            _operation_step(style, operation, operation, (before, after), digits)
            for style in STYLES
        )
        steps.append(frozenset(text.strip() for text in worded))
    return (*steps, frozenset([_final_step(question.answer)]))


def read_aloud(question: Question) -> str:
    """Return the response to the reading drill: the picture's digits in reading order."""
    return "".join(f" {digit}" for digit in question.picture.digits)


def write_solution(question: Question, mixture: Mixture, rng: random.Random) -> str:
    """Write a response, good or faulty, to the question as the loop asks it."""
    if rng.random() < mixture.guess:
        guess = rng.choice(question.options) if question.options else str(rng.randint(0, MAX_VALUE))
        return _final_step(guess)
    chain = _write_chain(question, mixture, rng)
    return chain.text + _final_step(_as_answer(chain.value, question, rng))


def write_hinted_solution(question: Question, mixture: Mixture, rng: random.Random) -> str:
    """Write a response to the question whose prompt also holds the answer.

    It may copy the hint, and an unsound chain may end in the hint all the same: such an
    unfaithful rationale is what exact match on the answer cannot filter out.
    """
    if rng.random() < mixture.copy_hint:
        return _final_step(question.answer)
    chain = _write_chain(question, mixture, rng)
    if not chain.sound and rng.random() < mixture.force_hint:
        return chain.text + _final_step(question.answer)
    return chain.text + _final_step(_as_answer(chain.value, question, rng))


def _final_step(answer: str) -> str:
    return f"Answer: \\boxed{{{answer}}}"


def _as_answer(value: int, question: Question, rng: random.Random) -> str:
    """Return the value, or any option where the question has options and the value is none."""
    if question.options and str(value) not in question.options:
        return rng.choice(question.options)
    return str(value)


def _write_chain(question: Question, mixture: Mixture, rng: random.Random) -> _Chain:
    """Write the steps before the answer; redrawn when a fault leads out of 0..30."""
    style = rng.choices(STYLES, mixture.styles)[0]
    while True:
        chain = _try_chain(question, style, mixture, rng)
        if chain is not None:
            return chain


def _try_chain(
    question: Question, style: Style, mixture: Mixture, rng: random.Random
) -> _Chain | None:
    digits = question.picture.digits
    start = _take_cell(question.start, mixture, rng)
    chain = _Chain(
        text=_start_step(style, question.start, digits[start]),
        value=digits[start],
        sound=start == question.start,
    )
    for number, operation in enumerate(question.operations, start=1):
        taken = _take_operation(operation, mixture, rng)
        before, after = chain.value, taken.apply(chain.value, digits)
        if not 0 <= after <= MAX_VALUE:
            return None
        written = after
        if rng.random() < mixture.slip:
            written = min(MAX_VALUE, max(0, after + rng.choice(_SLIPS)))
        chain.text += _operation_step(style, operation, taken, (before, written), digits)
        chain.value = written
        chain.sound = chain.sound and taken == operation and written == after
        stop = mixture.stop_first if number == 1 else mixture.stop_later
        if number < question.level and rng.random() < stop:
            chain.sound = False
            break
    return chain


def _take_cell(cell: int, mixture: Mixture, rng: random.Random) -> int:
    if rng.random() < mixture.wrong_cell:
        return rng.choice([other for other in range(len(CELL_NAMES)) if other != cell])
    return cell


def _take_operation(operation: Operation, mixture: Mixture, rng: random.Random) -> Operation:
    if operation.cell is None:
        return operation
    operator = operation.operator
    if rng.random() < mixture.wrong_operator:
        operator = "subtract" if operator == "add" else "add"
    return Operation(operator=operator, cell=_take_cell(operation.cell, mixture, rng))


def _start_step(style: Style, cell: int, digit: int) -> str:
    name = CELL_NAMES[cell]
    if style == "named":
        return f"Start with {name}: {digit}.\n"
    return f"The {name} is {digit}.\n" if style == "told" else ""


def _operation_step(
    style: Style,
    asked: Operation,
    taken: Operation,
    values: tuple[int, int],
    digits: tuple[int, ...],
) -> str:
    """Write one step. It names the cell that was asked for, even where another one was read."""
    before, after = values
    if asked.cell is None or taken.cell is None:
        opening = "Double:" if style == "named" else "So"
        return f"{opening} {before} + {before} = {after}.\n"
    name, digit = CELL_NAMES[asked.cell], digits[taken.cell]
    sign = "-" if taken.operator == "subtract" else "+"
    if style == "named":
        verb = "Subtract" if sign == "-" else "Add"
        return f"{verb} {name}: {before} {sign} {digit} = {after}.\n"
    opening = f"The {name} is {digit}, so" if style == "told" else "So"
    return f"{opening} {before} {sign} {digit} = {after}.\n"


def _drill_line(rng: random.Random) -> str:
    while True:
        value, digit = rng.randint(0, MAX_VALUE), rng.randint(0, 9)
        sign = rng.choices("+-2", (2, 2, 1))[0]
        operand = value if sign == "2" else digit
        result = value - operand if sign == "-" else value + operand
        if 0 <= result <= MAX_VALUE:
            return f"So {value} {'-' if sign == '-' else '+'} {operand} = {result}.\n"
