"""What is kept of a finished cell: enough to compute every statistic again without the store it ran in."""

from collections.abc import Sequence

from pydantic import ConfigDict, Field

from mstar.record import Record


class Kept(Record):
    """Base of what stands in ``study.json``. A key of a later version is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Answered(Kept):
    """Greedy answers to the test questions. ``correct`` has a bit a question in hexadecimal, the first one highest.

    ``questions`` is a hash of their ids in order: only tests of equal ones are compared question by question.
    """

    questions: str
    count: int = Field(ge=1)
    correct: str
    pass_at: dict[int, float] = Field(default_factory=dict)

    def answers(self) -> list[bool]:
        """Right or wrong, by question."""
        bits = int(self.correct, 16)
        return [bool(bits >> (self.count - 1 - index) & 1) for index in range(self.count)]


class Sampled(Kept):
    """What an evaluation on validation found at one temperature."""

    temperature: float
    pass_at: dict[int, float]
    reward_pass_at_2: float | None = None


class Point(Kept):
    """A policy on validation, after ``updates`` optimizer steps and ``queries`` queries of evolving in all.

    ``temperature`` is the one that evolving sampled it at; the last policy, which it no longer samples, has the one of
    the iteration that made it.
    """

    iteration: int
    updates: int
    queries: int
    questions: int
    greedy: float | None
    temperature: float | None = None
    sampled: tuple[Sampled, ...] = ()


class Cost(Kept):
    """Steps of the run, and seconds of those it made itself; ``saved`` is what making the adopted ones took."""

    steps: int
    adopted: int
    seconds: float
    saved: float


class CellRecord(Kept):
    """A finished cell. ``spec`` is the fingerprint of what decided its results.

    ``data``, ``model`` and ``teacher`` (None without one) are digests. ``tests`` are by phase (base, warm-up, final).
    ``updates`` and ``queries`` are totals of evolving, ``finished_at`` is in epoch seconds.
    """

    run: str
    row: str
    base: str | None
    seed: int
    spec: str
    data: str
    model: str
    teacher: str | None = None
    tests: dict[str, Answered]
    points: tuple[Point, ...]
    updates: int
    queries: int
    cost: Cost
    finished_at: float
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str | None, int]:
        """Which cell it is."""
        return self.row, self.base, self.seed

    @property
    def pair(self) -> tuple[str | None, int]:
        """What it has in common with the cell of another row that it is compared with."""
        return self.base, self.seed

    @property
    def final(self) -> Answered:
        """The last policy's test, which every record has."""
        return self.tests["final"]


def packed(answers: Sequence[bool]) -> str:
    """Right or wrong, by question, as ``Answered.correct`` holds it."""
    bits = int("".join("1" if right else "0" for right in answers), 2)
    return f"{bits:0{-(-len(answers) // 4)}x}"
