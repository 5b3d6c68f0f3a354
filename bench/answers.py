"""How fast answers are checked with math-verify behind the typed checks, and what a hanging input costs.

``python -m bench.answers`` prints one JSON object. It needs the extra ``answers``.
"""

import json
import time
from collections.abc import Sequence

from bench.core import QUESTIONS, REASONING, SAMPLES, answers_per_second
from mstar.core.records import Query
from mstar.equivalence.asking import Question, question
from mstar.equivalence.checking import Checker
from mstar.equivalence.pool import Pool, Verdict

TIMEOUT = 5.0
HANGING = "9^{9^{9^{9}}}"
RIGHT, WRONG = r"\sqrt{12}", r"2\sqrt{3}"

# True answers that only algebra recognises in what is written: right, wrong, as text, and in words. # is a number.
EXPRESSIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"#\sqrt{3}", (r"\sqrt{3} \cdot #", r"#\sqrt{2}", r"#\sqrt{3}", "about #")),
    ("x^2-#", ("-#+x^2", "(x-#)^2", "x^2-#")),
    (r"\frac{\pi}{#}", (r"\pi/#", r"#\pi", "1.57", "# degrees")),
    ("y=2x+#", ("y-2x=#", "y=2x-#", "2x+#")),
    (r"(0, #\pi)", ("0 < x < #*pi", r"[0, #\pi]")),
)


def responses(queries: int, share: float) -> list[tuple[str, Query]]:
    """16 responses to each query, a ``share`` of the queries asking for expressions; no two of these are alike."""
    work = []
    for number in range(queries):
        answer, options, written = QUESTIONS[number % len(QUESTIONS)]
        if number % 100 < share * 100:
            # A number of its own, so that what is remembered of one query is of no use to the next.
            (answer, written), options = EXPRESSIONS[number % len(EXPRESSIONS)], ()
            answer = answer.replace("#", str(number + 5))
            written = tuple(text.replace("#", str(number + 5)) for text in written)
        query = Query(id=str(number), question="?", answer=answer, options=options)
        texts = (f"{REASONING}\\boxed{{{written[i % len(written)]}}}" for i in range(SAMPLES))
        work += [(text, query) for text in texts]
    return work


def throughput(share: float, workers: int, queries: int) -> dict[str, float]:
    """Responses graded a second, workers warm; and the milliseconds a question took that was really asked."""
    work = responses(queries, share)
    with Pool(timeout=TIMEOUT, workers=workers) as pool:
        asker = _Counting(pool)
        Checker(asker).grade_all(responses(10, 1.0))
        asker.asked, checker = 0, Checker(asker)
        begin = time.perf_counter()
        checker.grade_all(work)
        seconds = time.perf_counter() - begin
        return {
            "share_of_expressions": share,
            "workers": workers,
            "answers_per_second": round(len(work) / seconds),
            "asked": asker.asked,
            "ms_a_question": round(seconds * 1000 * workers / max(1, asker.asked), 2),
            "undecided": checker.undecided,
        }


def hanging(timeout: float) -> dict[str, float]:
    """Seconds until a hanging input is undecided, and until the next answer is there from a new worker."""
    slow, good = question(HANGING, WRONG), question(RIGHT, WRONG)
    assert isinstance(slow, Question)
    assert isinstance(good, Question)
    with Pool(timeout=timeout) as pool:
        started = _seconds(pool, good, Verdict.RIGHT)
        warm = _seconds(pool, good, Verdict.RIGHT)
        hung = _seconds(pool, slow, Verdict.UNDECIDED)
        after = _seconds(pool, good, Verdict.RIGHT)
    return {
        "timeout": timeout,
        "first_answer_with_start": round(started, 2),
        "warm_answer": round(warm, 4),
        "until_undecided": round(hung, 3),
        "next_answer_from_a_new_worker": round(after, 2),
    }


class _Counting:
    """A pool that counts what it is asked."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.asked = 0

    def ask_all(self, questions: Sequence[Question]) -> list[Verdict]:
        self.asked += len(questions)
        return self._pool.ask_all(questions)


def _seconds(pool: Pool, asked: Question, expected: Verdict) -> float:
    begin = time.perf_counter()
    found = pool.ask(asked)
    assert found is expected, found
    return time.perf_counter() - begin


def main() -> None:
    results = {
        "typed_answers_per_second": round(answers_per_second()),
        "throughput": [
            throughput(share, workers, queries=100) for share in (0.05, 1.0) for workers in (1, 2)
        ],
        "hanging": hanging(TIMEOUT),
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
