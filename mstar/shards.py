"""Names of files that are parts of one set: ``train-00001-of-00003.parquet``, with a hash behind it on some hubs."""

import re
from collections.abc import Iterable

_COUNTED = re.compile(r"(.+?)-(\d+)-of-(\d+)(-[0-9a-f]+)?(\.\w+)")
_NUMBERED = re.compile(r"(.+?)-\d+(-of-\d+(-[0-9a-f]+)?)?\.\w+")


SHOWN = 4


def lacking(names: Iterable[str]) -> str:
    """What ``names`` lack of as many as they say there are, the first few in order; empty when they are whole.

    ``*`` stands for a hash that nobody knows.
    """
    sets: dict[tuple[str, str, str, str], set[int]] = {}
    for name in names:
        if found := _COUNTED.fullmatch(name):
            stem, number, total, mark, ending = found.groups()
            sets.setdefault((stem, total, "-*" if mark else "", ending), set()).add(int(number))
    missing = [
        f"{stem}-{number:0{len(total)}}-of-{total}{mark}{ending}"
        for (stem, total, mark, ending), there in sorted(sets.items())
        for number in range(int(total))
        if number not in there
    ]
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return ", ".join(missing[:SHOWN]) + more


def shard_of(name: str) -> str | None:
    """The set that a file is a numbered part of, with or without their count; None for one that is whole."""
    found = _NUMBERED.fullmatch(name)
    return found[1] if found else None
