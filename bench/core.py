"""How fast answers are checked, and that selection over a million responses needs memory for its limit only.

``python -m bench.core`` prints one JSON object.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator

from mstar.core.answers import grade
from mstar.core.records import Finish, Grade, Query, Response, Scored
from mstar.core.selection import SelectionRule, select

SAMPLES = 16
REASONING = "Read the picture: it shows 4, 7, 1 and 9.\n4 plus 7 is 11.\nDouble it: 22.\n" * 3

# True answer, options, and what a policy might answer to it: right, wrong, and in other notations.
QUESTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("22", (), ("22", "21", "22.0", "$22$")),
    ("B", ("21", "22", "11", "30"), ("B", "(B)", "22", "A", "B: 22", r"\text{B}")),
    ("a red cube", ("a red cube", "a blue ball"), ("A", "a red cube", "A. a red cube", "a cube")),
    ("3/4", (), ("0.75", r"\frac{3}{4}", "75%", "1 1/2", "3:4")),
    ("1,234.5", (), ("1234.50", "1,234.5", "1.2345e3", "1,234")),
    ("yes", (), ("Yes.", "no", r"\text{yes}", "yes, it is")),
    ("5 cm", (), (r"5\text{ cm}", "5 cm", "5", "6 cm")),
)


def answers_per_second(seconds: float = 2.0) -> float:
    """Responses graded a second on one core, extraction included: 16 of one query after another, as they come."""
    work = []
    for number, (answer, options, written) in enumerate(QUESTIONS):
        query = Query(id=str(number), question="?", answer=answer, options=options)
        texts = [f"{REASONING}\\boxed{{{written[i % len(written)]}}}" for i in range(SAMPLES)]
        work += [(text, query) for text in texts]
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for text, query in work:
            grade(text, query)
        done += len(work)
    return done / (time.perf_counter() - begin)


def stream(responses: int) -> Iterator[Scored]:
    for number in range(responses):
        query, sample = divmod(number, SAMPLES)
        response = Response(
            query_id=f"q{query}",
            sample=sample,
            text=f"{REASONING}\\boxed{{{number}}}",
            tokens=(),
            finish=Finish.STOP,
            temperature=1.0,
            policy="policy",
            seed=number,
        )
        yield Scored(
            response=response,
            grade=Grade(answer=str(number), correct=number % 3 != 0),
            step_scores=(0.9, number * 7919 % 1000 / 1000),
        )


def selection(responses: int, rule: SelectionRule) -> dict[str, float]:
    """Seconds, responses kept, and by how much the highest memory use of the process rose."""
    before, begin = peak_mib(), time.perf_counter()
    kept = sum(1 for _ in select(stream(responses), rule, seed=0))
    return {
        "responses": responses,
        "kept": kept,
        "seconds": round(time.perf_counter() - begin, 2),
        "peak_rise_mib": round(peak_mib() - before, 2),
    }


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    rules = {
        "top_2": SelectionRule(rule="top_k", k=2, deduplicate=True),
        "all_limit_10000": SelectionRule(rule="all", limit=10_000),
    }
    # First a tenth, then all: ten times the responses must not need more memory.
    selections = {
        name: [selection(responses, rule) for responses in (100_000, 1_000_000)]
        for name, rule in rules.items()
    }
    results = {"answers_per_second": round(answers_per_second()), "selection": selections}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
