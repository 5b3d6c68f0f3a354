"""Which queries an iteration passes, and how long its training warms up (paper, section 3.2)."""

from fractions import Fraction
from itertools import chain
from math import ceil
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


def interval_count(total: int, interval: float) -> int:
    """How many queries a share ``interval`` of ``total`` is: rounded down, so that whole passes hold it, at least 1.

    Raises ``ValueError`` unless ``total >= 1`` and ``0 < interval <= 1``.
    """
    if total < 1 or not 0 < interval <= 1:
        raise ValueError(f"an interval of {interval} of {total} queries is not possible")
    # Through its text: 0.29 of 100 is 29, of which the float product falls short.
    return max(1, int(Fraction(str(interval)) * total))


def iteration_slice(iteration: int, count: int, total: int) -> tuple[int, int]:
    """Start and count of iteration 1, 2, ...: slices of ``count`` one after another, none across two passes.

    So no iteration meets a query twice. What is left at the end of a pass, fewer than ``count``, is skipped; with a
    shuffle it is other queries each time. Raises ``ValueError`` unless ``iteration >= 1`` and ``1 <= count <= total``.
    """
    if iteration < 1 or not 1 <= count <= total:
        raise ValueError(f"iteration {iteration} of {count} of {total} queries is not possible")
    number, place = divmod(iteration - 1, total // count)
    return number * total + place * count, count


def planned_steps(examples: int, batch_size: int, epochs: int = 1) -> int:
    """Optimizer steps of ``epochs`` passes over ``examples``, the last batch of a pass maybe smaller."""
    return -(-examples // batch_size) * epochs


def warmup_steps(ratio: float, planned: int) -> int:
    """Steps of linear warm-up: a share ``ratio`` of the ``planned`` ones, rounded up (paper: 0.1 of 10,000)."""
    return ceil(Fraction(str(ratio)) * planned)


def _pass_order(total: int, number: int, shuffle: int | None) -> list[int]:
    if shuffle is None:
        return list(range(total))
    # Of Random, only random() promises the same numbers in every version of Python; shuffle() does not.
    draw = Random(derive_seed("pass", shuffle, number)).random
    keys = [draw() for _ in range(total)]
    return sorted(range(total), key=keys.__getitem__)
