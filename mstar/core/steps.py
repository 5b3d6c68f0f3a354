"""Where the steps of a response begin and end, in its text and in its tokens."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise


def split_steps(text: str, separator: str = "\n") -> tuple[str, ...]:
    """The steps of a response: what lies between separators and is not blank, stripped. Empty for blank text."""
    return tuple(text[start:end].strip() for start, end in _spans(text, separator))


def step_ends_from_pieces(pieces: Sequence[str], separator: str = "\n") -> tuple[int, ...]:
    """For each step, the token index (exclusive) at its end, given the text of each token.

    A step ends with the token in which its separator ends; further separators and blank tokens before the next step
    belong to it too, and so do those before the first step. The last end is ``len(pieces)``; there is none for no
    tokens. Steps that end in the same token count as one. Ends are strictly increasing.
    """
    if not pieces:
        return ()
    text = "".join(pieces)
    token_ends = list(accumulate(map(len, pieces)))
    spans = list(_spans(text, separator))
    ends: list[int] = []
    for (_, end), (following, _) in pairwise(spans):
        last = bisect_right(token_ends, end + len(separator) - 1)
        stop = max(last + 1, bisect_right(token_ends, following))
        if not ends or stop > ends[-1]:
            ends.append(stop)
    if not ends or ends[-1] < len(pieces):
        ends.append(len(pieces))
    return tuple(ends)


def _spans(text: str, separator: str) -> Iterator[tuple[int, int]]:
    """Start and end of each step: the start is its first character that is not blank, the end its separator's start."""
    if not separator:
        raise ValueError("the step separator must not be empty")
    start = 0
    while start <= len(text):
        found = text.find(separator, start)
        end = found if found >= 0 else len(text)
        blank = len(text[start:end]) - len(text[start:end].lstrip())
        if start + blank < end:
            yield start + blank, end
        start = end + len(separator)
