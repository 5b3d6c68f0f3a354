"""Records for pages and comparisons, made up without any store."""

from random import Random

from mstar.study.grid import Cell
from mstar.study.records import Answered, CellRecord, Cost, Point, Sampled, packed

TEMPERATURES = (0.5, 0.7, 0.9, 1.1, 1.3)


def make_test(answers, questions="q", pass_at=None):
    return Answered(
        questions=questions,
        count=len(answers),
        correct=packed(answers),
        pass_at=pass_at or {16: 0.9},
    )


def make_record(row="all", base=None, seed=0, answers=(True, False, True, False), **changes):
    """A finished cell."""
    fields = {
        "run": "-".join(filter(None, ("st", row, base, f"s{seed}"))),
        "row": row,
        "base": base,
        "seed": seed,
        "spec": f"spec of {row}",
        "data": "data",
        "model": f"model {base}",
        "tests": {"final": make_test(list(answers))},
        "points": (),
        "updates": 0,
        "queries": 0,
        "cost": Cost(steps=10, adopted=4, seconds=30.0, saved=10.0),
        "finished_at": 1.0,
    }
    return CellRecord(**(fields | changes))


def make_cell(record):
    return Cell(row=record.row, base=record.base, seed=record.seed, run=record.run)


def make_points(random, skill, *, iterations=4, updates=100, prm=True, single=False):
    """Validation of one cell: greedy rises to ``skill``, exploration falls."""
    points = []
    for iteration in [iterations] if single else range(iterations + 1):
        greedy = 0.3 + (skill - 0.3) * iteration / iterations + random.gauss(0, 0.02)
        sampled = tuple(
            Sampled(
                temperature=t,
                pass_at={
                    1: greedy - 0.05,
                    16: min(1.0, greedy + 0.35 - 0.04 * iteration + 0.05 * t),
                },
                reward_pass_at_2=greedy + 0.1 - 0.05 * abs(t - 0.9) if prm else None,
            )
            for t in (TEMPERATURES if iteration % 2 == 0 else (1.1,))
        )
        points.append(
            Point(
                iteration=iteration,
                updates=iteration * updates,
                queries=iteration * 1200,
                questions=100,
                greedy=greedy,
                sampled=sampled,
            )
        )
    return tuple(points)


def make_records(rows, bases=("a", "b"), seeds=(0, 1, 2), questions=300):
    """A whole grid; ``rows`` are names with their skill."""
    random = Random(3)
    hard = [random.gauss(0, 1) for _ in range(questions)]
    found = []
    for seed in seeds:
        for base in bases:
            luck = random.gauss(0, 0.15)
            for name, skill in rows.items():
                own = random.gauss(luck, 0.15)
                level = (skill - 0.5) * 3 + own
                answers = [level + h + random.gauss(0, 0.7) > 0 for h in hard]
                first = [h > 0.8 for h in hard]
                single = name == "sft"
                points = make_points(
                    random, skill, updates=80 + 10 * len(name), prm="prm" in name, single=single
                )
                record = make_record(
                    name,
                    base,
                    seed,
                    tests={
                        "base": make_test(first),
                        "warm-up": make_test([h > 0.4 + luck for h in hard]),
                        "final": make_test(answers),
                    },
                    points=points,
                    updates=points[-1].updates,
                    queries=points[-1].queries,
                    cost=Cost(
                        steps=35,
                        adopted=random.randrange(8, 20),
                        seconds=120.0,
                        saved=random.uniform(20, 80),
                    ),
                )
                found.append(record)
    return found
