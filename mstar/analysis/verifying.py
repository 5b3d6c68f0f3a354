"""The PRM as a verifier: Best-of-N and voting against N (paper, section 3.3 and figure 2a).

Of a query's samples each N-th part counts: with 64 samples, N = 16 is asked four times, of samples 0 to 15, 16 to 31
and so on, and the query's value is the mean. So small N rest on all samples, and intervals are over queries. Pass@N is
the unbiased estimate from all samples, as everywhere else.
"""

from collections.abc import Sequence

from mstar.analysis.records import Estimate, Verification, estimate, share
from mstar.core.metrics import mean, pass_at_k
from mstar.core.records import Scored
from mstar.core.seeds import derive_seed
from mstar.core.voting import best_of_n, majority_vote, weighted_vote

BEST, WEIGHTED, MAJORITY, PASS = "best_of_n", "weighted_vote", "majority_vote", "pass_at_n"
COMPARED = ((BEST, MAJORITY), (WEIGHTED, MAJORITY))
GREEDY = "greedy"


def sizes_of(samples: int) -> tuple[int, ...]:
    """1, 2, 4 ... up to ``samples``, which is the last even when it is no power of two."""
    powers = [2**i for i in range(samples.bit_length())]
    return tuple(powers if powers[-1] == samples else [*powers, samples])


class Verifying:
    """Gathers what each query says; memory holds a few numbers a query."""

    def __init__(self, samples: int) -> None:
        self.sizes = sizes_of(samples)
        self._values: dict[str, list[list[float]]] = {
            name: [[] for _ in self.sizes] for name in (BEST, WEIGHTED, MAJORITY, PASS)
        }
        self._queries: list[str] = []
        self._greedy: dict[str, bool] = {}

    def add_greedy(self, item: Scored) -> None:
        """The greedy response to a query."""
        self._greedy[item.response.query_id] = item.grade.correct

    def add(self, group: Sequence[Scored], options: Sequence[str]) -> None:
        """All samples of one query. Those without a step score have no token, and no verifier chooses them."""
        self._queries.append(group[0].response.query_id)
        right = sum(item.grade.correct for item in group)
        for place, size in enumerate(self.sizes):
            found = [_chosen(block, options) for block in _blocks(group, size)]
            for name, hits in zip(
                (BEST, WEIGHTED, MAJORITY), zip(*found, strict=True), strict=True
            ):
                self._values[name][place].append(mean([float(hit) for hit in hits]))
            self._values[PASS][place].append(pass_at_k(len(group), right, size))

    def result(self, seed: int) -> Verification:
        """Means and paired differences with their intervals. Raises ``ValueError`` when nothing was added."""
        values = self._values
        differences = {
            f"{one} - {other}": self._paired(values[one], values[other], seed, f"{one}/{other}")
            for one, other in COMPARED
        }
        known = [self._greedy[query] for query in self._queries if query in self._greedy]
        if len(known) == len(self._queries):
            alone = [[float(right) for right in known]] * len(self.sizes)
            for name in (BEST, MAJORITY):
                paired = self._paired(values[name], alone, seed, f"{name}/{GREEDY}")
                differences[f"{name} - {GREEDY}"] = paired
        return Verification(
            sizes=self.sizes,
            curves={
                name: tuple(
                    estimate(column, derive_seed(seed, name, size))
                    for size, column in zip(self.sizes, columns, strict=True)
                )
                for name, columns in values.items()
            },
            differences=differences,
            greedy=share(sum(known), len(known)) if known else None,
        )

    def _paired(
        self,
        ours: Sequence[Sequence[float]],
        theirs: Sequence[Sequence[float]],
        seed: int,
        name: str,
    ) -> tuple[Estimate, ...]:
        return tuple(
            estimate(
                [x - y for x, y in zip(mine, other, strict=True)], derive_seed(seed, name, size)
            )
            for size, mine, other in zip(self.sizes, ours, theirs, strict=True)
        )


def _blocks(group: Sequence[Scored], size: int) -> list[list[Scored]]:
    """The samples in runs of ``size``, by their index; a rest is left out."""
    ordered = sorted(group, key=lambda item: item.response.sample)
    return [ordered[start : start + size] for start in range(0, len(ordered) - size + 1, size)]


def _chosen(block: Sequence[Scored], options: Sequence[str]) -> tuple[bool, bool, bool]:
    """Whether Best-of-N, the weighted and the majority vote are right."""
    judged = [item for item in block if item.step_scores]
    if not judged:
        return False, False, False
    return (
        best_of_n(judged).grade.correct,
        weighted_vote(judged, options).grade.correct,
        majority_vote(judged, options).grade.correct,
    )
