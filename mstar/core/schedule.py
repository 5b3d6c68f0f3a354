"""Which queries an iteration passes, when training restarts, and how it warms up (paper, sections 3.2 and 3.4)."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from random import Random

from mstar.core.seeds import derive_seed


def slice_indices(
    total: int, start: int = 0, count: int | None = None, shuffle: int | None = None
) -> list[int]:
    """Places ``start`` to ``start + count`` of an endless stream of passes over ``total`` queries.

    With ``shuffle`` None every pass keeps the split's own order; else pass ``p`` is a permutation that only ``shuffle``
    and ``p`` decide. ``count`` None goes to the end of the pass that ``start`` lies in. No index repeats inside one
    pass, so one slice holds an index twice only where it crosses from one pass into the next.

    Raises ``ValueError`` when there are no queries, or ``start`` or ``count`` is negative.
    """
    if total < 1 or start < 0 or (count is not None and count < 0):
        raise ValueError(f"no slice of {count} from {start} of {total} queries")
    first, offset = divmod(start, total)
    if count is None:
        count = total - offset
    passes = range(first, first - (-(offset + count) // total))
    order = list(chain.from_iterable(_pass_order(total, number, shuffle) for number in passes))
    return order[offset : offset + count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Places ``start`` to ``start + count`` of the endless stream that ``slice_indices`` numbers."""

    start: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One iteration: what it takes, and where its training begins.

    ``weights`` numbers the checkpoint it starts from (0 is the one before the first iteration), ``optimizer`` the one
    whose optimizer and schedule go on, None where the iteration restarts with fresh ones.
    """

    number: int
    labeled: Stretch
    unlabeled: Stretch | None
    weights: int
    optimizer: int | None


def schedule(
    *,
    iterations: int,
    interval: float,
    labeled: int,
    weights: Callable[[int], int],
    optimizer: Callable[[int], int | None],
    unlabeled: int = 0,
    after: float | None = None,
) -> tuple[Turn, ...]:
    """All iterations of a run: which queries each takes, when unlabeled ones enter, and when training restarts.

    An iteration takes a share ``interval`` of the ``labeled`` queries, the next ones in their stream and none across
    two passes: no iteration meets a query twice, and every pass visits each once. What is left of a pass and too small
    for an iteration is skipped; with a shuffle it is other queries each time. Once a share ``after`` of the iterations
    is over, an iteration takes as many queries in all, half of them (rounded down) from the ``unlabeled`` stream: the
    paper mixes and does not say how much of each, so the half is our choice. ``after`` None never mixes.

    Raises ``ValueError`` for an interval that does not tile, or fewer unlabeled queries than one iteration takes.
    """
    count = interval_count(labeled, interval)
    mixed = count // 2
    if after is not None and not 1 <= mixed <= unlabeled:
        raise ValueError(
            f"a mixed iteration takes {mixed} unlabeled queries (half of {count}), but there are {unlabeled}"
        )
    turns = []
    next_labeled = next_unlabeled = 0
    for number in range(1, iterations + 1):
        extra = None
        if after is not None and mixes(number, iterations, after):
            extra = _following(next_unlabeled, mixed, unlabeled)
            next_unlabeled = extra.start + extra.count
        taken = _following(next_labeled, count - (extra.count if extra else 0), labeled)
        next_labeled = taken.start + taken.count
        turns.append(
            Turn(
                number=number,
                labeled=taken,
                unlabeled=extra,
                weights=weights(number),
                optimizer=optimizer(number),
            )
        )
    return tuple(turns)


def mixes(number: int, iterations: int, after: float) -> bool:
    """Whether iteration 1, 2, ... takes unlabeled queries: a share ``after`` of all iterations is over before it."""
    return number - 1 >= Fraction(str(after)) * iterations


def interval_parts(interval: float) -> int:
    """How many iterations a pass has: the whole number that ``interval`` is one part of.

    Raises ``ValueError`` unless there is one: what does not tile would visit some queries more often than others.
    """
    parts = round(1 / interval) if 0 < interval <= 1 else 0
    # A third cannot be written in decimals; one in a million is nearer than any two intervals that mean something.
    if not parts or abs(parts * interval - 1) > 1e-6:
        raise ValueError(
            f"an interval of {interval:g} does not tile the queries: its inverse must be a whole number "
            "(1, 0.5, 0.25, 0.125, ...)"
        )
    return parts


def interval_count(total: int, interval: float) -> int:
    """How many queries a share ``interval`` of ``total`` is: rounded down, so that whole passes hold it, at least 1.

    Raises ``ValueError`` for no queries, and as ``interval_parts``.
    """
    if total < 1:
        raise ValueError(f"an interval of {interval} of {total} queries is not possible")
    return max(1, total // interval_parts(interval))


def rate_share(step: int, warmup_steps: int) -> float:
    """The share of the full learning rate at optimizer step 0, 1, ...: one linear warm-up, and then constant."""
    return min(1.0, (step + 1) / max(1, warmup_steps))


def _following(place: int, count: int, total: int) -> Stretch:
    """The next ``count`` places from ``place`` on; from the next pass on when this one has too few left."""
    left = total - place % total
    return Stretch(start=place if count <= left else place + left, count=count)


def _pass_order(total: int, number: int, shuffle: int | None) -> list[int]:
    if shuffle is None:
        return list(range(total))
    # Of Random, only random() promises the same numbers in every version of Python; shuffle() does not.
    draw = Random(derive_seed("pass", shuffle, number)).random
    keys = [draw() for _ in range(total)]
    return sorted(range(total), key=keys.__getitem__)
