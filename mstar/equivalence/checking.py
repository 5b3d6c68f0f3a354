"""Answers graded by the typed checks first and by math-verify last; what it did not decide in time is counted apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from mstar.core.answers import canonical_answer, grade
from mstar.core.records import Grade, Query
from mstar.core.voting import Namer
from mstar.equivalence.asking import Question, question
from mstar.equivalence.pool import Verdict

REMEMBERED = 65_536
"""Verdicts kept, the oldest forgotten first: responses to a query repeat each other."""


class Asker(Protocol):
    """What answers questions: a ``Pool``, or a fake."""

    def ask_all(self, questions: Sequence[Question]) -> list[Verdict]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A grade, and whether it says wrong only because nobody could tell in time."""

    grade: Grade
    undecided: bool = False


class Checker:
    """Grades answers, and says which answers of a vote are the same. Safe from any thread; ``asker`` is not closed."""

    def __init__(
        self, asker: Asker, *, relative_tolerance: float = 0.0, decimals: int | None = None
    ) -> None:
        self._asker = asker
        self._tolerance = relative_tolerance
        self._decimals = decimals
        self._known: dict[Question, Verdict] = {}
        self._lock = Lock()
        self.undecided = 0
        """Questions without an answer so far."""

    def grade_all(self, responses: Iterable[tuple[str, Query]]) -> list[Graded]:
        """Each text's final answer to its query. An undecided one's grade says that it is not right."""
        typed = [(self._typed(text, query), query) for text, query in responses]
        asked = [None if found.correct else self._question(found, query) for found, query in typed]
        verdicts = self._verdicts([one for one in asked if one is not None])
        graded = []
        for (found, _), one in zip(typed, asked, strict=True):
            verdict = Verdict.WRONG if one is None else verdicts[one]
            correct = found.correct or verdict is Verdict.RIGHT
            graded.append(
                Graded(
                    grade=Grade(answer=found.answer, correct=correct),
                    undecided=verdict is Verdict.UNDECIDED,
                )
            )
        return graded

    def namer(self, answers: Iterable[str], options: Sequence[str] = ()) -> Namer:
        """What votes are counted under: like ``canonical_answer``, but one name for all answers shown to be the same.

        Answers come in the order of their responses. Each that differs from all before joins the first of them that it
        is the same as, else it stands for itself; so does one that was undecided. What decides is its comparison with
        the answer that stands for the class, so classes never run into each other.
        """
        options = tuple(options)
        names: dict[str, str] = {}
        standing: dict[str, str] = {}
        for answer in answers:
            name = canonical_answer(answer, options)
            if name not in names:
                names[name] = self._joined(answer, standing, options) or name
                if names[name] == name:
                    standing[name] = answer

        def of(answer: str, options: Sequence[str] = ()) -> str:
            name = canonical_answer(answer, options)
            return names.get(name, name)

        return of

    def _joined(
        self, answer: str, standing: dict[str, str], options: tuple[str, ...]
    ) -> str | None:
        asked = {}
        for name, other in standing.items():
            # Between options and other answers only the direction that has the option second is open.
            one = question(answer, other, options) or question(other, answer, options)
            if one is not None:
                asked[name] = one
        verdicts = self._verdicts(asked.values())
        return next((name for name, one in asked.items() if verdicts[one] is Verdict.RIGHT), None)

    def _typed(self, text: str, query: Query) -> Grade:
        return grade(text, query, self._tolerance, self._decimals)

    def _question(self, found: Grade, query: Query) -> Question | None:
        if found.answer is None:
            return None
        return question(found.answer, query.answer, query.options, self._tolerance, self._decimals)

    def _verdicts(self, asked: Iterable[Question]) -> dict[Question, Verdict]:
        """Verdicts by question; each question is put once, also one that nobody could answer."""
        with self._lock:
            found = {one: self._known.get(one) for one in asked}
        for one in found:
            if not one.pairs:
                found[one] = Verdict.RIGHT
        open_ones = [one for one, verdict in found.items() if verdict is None]
        new = dict(zip(open_ones, self._asker.ask_all(open_ones), strict=True))
        with self._lock:
            self.undecided += sum(verdict is Verdict.UNDECIDED for verdict in new.values())
            self._known |= new
            while len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
        return {one: verdict or new[one] for one, verdict in found.items()}
