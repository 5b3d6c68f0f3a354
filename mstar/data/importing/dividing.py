"""Which image goes into which split: a pure function of the images, the shares and the seed."""

from collections.abc import Mapping, Sequence

from mstar.core.seeds import unit
from mstar.data.importing.records import Shares
from mstar.errors import DataError


def divide(
    groups: Mapping[str, Sequence[int]], shares: Shares, seed: int
) -> tuple[dict[str, list[int]], list[int]]:
    """Rows by split, and those left over. ``groups`` are the rows of each image by its digest, none of them empty.

    Images are taken in an order that only ``seed`` decides, whole, so that no picture is in two splits. Test and
    validation get exactly as many rows as they should: an image with more rows than there is room for goes to another
    split, and only where no smaller one is left does one give a part of its rows; the others of it are left over.
    The labeled share is reached to within one image. Raises ``DataError`` when there are too few rows.
    """
    total = sum(map(len, groups.values()))
    needed = shares.test + shares.validation
    if total <= needed:
        raise DataError(
            f"{total:,} usable rows are too few for {shares.test} to test and {shares.validation} to validate; "
            "ask for fewer with --test and --validation"
        )
    order = sorted(groups, key=lambda digest: (unit("import", seed, digest), digest))
    splits: dict[str, list[int]] = {}
    left_over: list[int] = []
    for name, room in (("test", shares.test), ("validation", shares.validation)):
        if room:
            splits[name], order, spare = _exactly(room, order, groups)
            left_over += spare
    labeled = min(round(total * shares.labeled), total - needed)
    train: list[int] = []
    rest: list[int] = []
    for digest in order:
        (train if len(train) < labeled else rest).extend(groups[digest])
    splits["train"] = train
    if rest and shares.labeled < 1:
        splits["unlabeled"] = rest
    else:
        train += rest
    if not train:
        raise DataError(f"no row is left to train on, of {total:,}; all images are in other splits")
    return splits, left_over


def _exactly(
    room: int, order: Sequence[str], groups: Mapping[str, Sequence[int]]
) -> tuple[list[int], list[str], list[int]]:
    """``room`` rows of whole images, the images not taken, and the rows of a part of an image that were not taken."""
    taken: list[int] = []
    passed: list[str] = []
    for digest in order:
        if len(taken) + len(groups[digest]) <= room:
            taken += groups[digest]
        else:
            passed.append(digest)
    missing = room - len(taken)
    if not missing:
        return taken, passed, []
    if not passed:
        raise DataError(
            f"no image is left for a split of {room} rows; ask for fewer with --test and --validation"
        )
    cut = min(passed, key=lambda digest: len(groups[digest]))
    passed.remove(cut)
    return taken + list(groups[cut][:missing]), passed, list(groups[cut][missing:])
