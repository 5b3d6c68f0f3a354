"""The items of a JSON list in a file, one after another: a list of any length in the memory of its longest item."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mstar.errors import DataError

CHUNK = 1 << 20
LONGEST = 64 << 20
"""Characters an item may have; what cannot be read as JSON up to there is not JSON."""

_SPACE = " \t\r\n\ufeff"


def read_json_list(path: Path) -> Iterator[Any]:
    """The items. Raises ``DataError`` when the file is no list, is not JSON, or ends too early."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8", errors="replace") as file:
        text, at = file.read(CHUNK), 0
        at = _skip(text, at, _SPACE)
        if text[at : at + 1] != "[":
            raise DataError(f"{path} is no JSON list: it starts with {text[at : at + 20]!r}")
        at += 1
        for number in range(1 << 62):
            wanted = CHUNK
            while True:
                # Also behind the comma, which belongs to no item.
                at = _skip(text, at, _SPACE + ("," if number else ""))
                if text[at : at + 1] == "]":
                    return
                try:
                    item, end = decoder.raw_decode(text, at)
                    break
                except json.JSONDecodeError as error:
                    more = file.read(wanted)
                    if not more:
                        raise DataError(_torn(path, number, text[at:])) from None
                    if len(text) - at > LONGEST:
                        raise DataError(
                            f"{path}: item {number} is not JSON ({error.msg})"
                        ) from None
                    # Twice as much each time, so that one long item is not read again and again.
                    text, at, wanted = text[at:] + more, 0, wanted * 2
            yield item
            at = end


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _torn(path: Path, number: int, rest: str) -> str:
    what = f"from {rest[:40]!r} on" if rest.strip() else "at its end"
    return f"{path} ends too early or is no JSON {what}, behind {number:,} items; fetch it again"
