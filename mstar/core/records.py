"""What the algorithm talks about: plain values that carry where they came from.

Every record is frozen; a change is a new record. A response names the policy and the seed that wrote it, an
example names its response, so each training example can be traced to the checkpoint that produced it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a question is answered (the paper balances its PRM data over the two)."""

    MULTIPLE_CHOICE = "multiple_choice"
    FREE_FORM = "free_form"


class Finish(StrEnum):
    """Why a response ended: the model said so, or it reached the token limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question about one image, with its true answer. The image itself stays in the data set.

    ``options`` is empty for free-form questions; for multiple choice, ``answer`` is an option's text or letter.
    """

    id: str
    question: str
    answer: str
    options: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        return Kind.MULTIPLE_CHOICE if self.options else Kind.FREE_FORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One sampled answer to a query.

    ``tokens`` leaves out the end-of-sequence token. ``prefix`` is empty for an answer from the start; a completion
    of another response's first tokens has ``"<sample>/<tokens>"`` there and holds only what was completed.
    """

    query_id: str
    sample: int
    text: str
    tokens: tuple[int, ...]
    finish: Finish
    temperature: float
    policy: str
    seed: int
    prefix: str = ""

    @property
    def token_count(self) -> int:
        """Tokens the policy had to produce, the end-of-sequence token included."""
        return len(self.tokens) + (self.finish is Finish.STOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """Whether a response's final answer is right. ``answer`` is None when it gave none."""

    answer: str | None
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A response, its grade, and what the PRM says of each of its steps (empty when no PRM was asked)."""

    response: Response
    grade: Grade
    step_scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training example: answer the query this way.

    ``reward`` is what selection ranked by; for the PRM's pairs it is 1 for a right response and 0 for a wrong one.
    For the policy, ``labels`` is empty: every response token is a target. For the PRM, step ``i`` covers the
    response tokens up to ``step_ends[i]`` (exclusive) and all its tokens carry ``labels[i]``, a value in [0, 1].
    """

    query_id: str
    sample: int
    text: str
    tokens: tuple[int, ...]
    finish: Finish
    policy: str
    seed: int
    reward: float | None = None
    step_ends: tuple[int, ...] = ()
    labels: tuple[float, ...] = ()
