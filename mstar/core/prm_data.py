"""What the process reward model learns from: Monte Carlo estimates of every step (paper, section 3.3).

Candidates of each query, a balanced choice of them over all queries, labels for their steps, and who is held out.
"""

from collections.abc import Iterable, Sequence

from mstar.core.draws import Draw, priority
from mstar.core.records import Kind, Scored
from mstar.core.seeds import unit
from mstar.core.selection import unique_texts


def candidate_pairs(scored: Sequence[Scored], *, per_query: int, seed: int) -> list[Scored]:
    """At most ``per_query`` responses of one query, no text twice, half right and half wrong where it has them.

    When one half is short the other fills up; an odd place goes to either by a toss. By draw, and in sample order.
    """
    unique = unique_texts(sorted(scored, key=lambda s: (s.response.sample, s.response.seed)))
    drawn = sorted(unique, key=lambda item: priority(item.response, seed, "pair"))
    right = [item for item in drawn if item.grade.correct]
    wrong = [item for item in drawn if not item.grade.correct]
    half = per_query // 2
    if per_query % 2 and drawn and unit(seed, "odd pair", drawn[0].response.query_id) < 0.5:
        half += 1
    keep_right = min(len(right), max(half, per_query - len(wrong)))
    keep_wrong = min(len(wrong), per_query - keep_right)
    chosen = {id(item) for item in right[:keep_right] + wrong[:keep_wrong]}
    return [item for item in unique if id(item) in chosen]


def balance(candidates: Iterable[tuple[Scored, Kind]], *, limit: int, seed: int) -> list[Scored]:
    """At most ``limit`` candidates: right and wrong, multiple choice and free-form, the same number of each kind.

    So many of each of the four as the rarest has; a kind of question that the stream holds none of is left out of the
    count, so a data set of one kind still gets right and wrong 1:1. By draw, in the stream's order; memory holds at
    most two times ``limit``. Raises ``ValueError`` when ``limit`` is less than 4.
    """
    if limit < 4:
        raise ValueError(f"limit must be at least 4, one of each kind, found {limit}")
    draws: dict[tuple[Kind, bool], Draw[tuple[int, Scored]]] = {
        (kind, correct): Draw(limit // 2) for kind in Kind for correct in (True, False)
    }
    for index, (item, kind) in enumerate(candidates):
        draw = draws[kind, item.grade.correct]
        draw.offer((index, item), priority(item.response, seed, "balance"))
    present = [kind for kind in Kind if draws[kind, True] or draws[kind, False]]
    groups = [draws[kind, correct] for kind in present for correct in (True, False)]
    if not groups:
        return []
    size = min(limit // len(groups), *map(len, groups))
    chosen = [entry for group in groups for entry in group.lowest(size)]
    return [item for _, item in sorted(chosen, key=lambda entry: entry[0])]


def step_labels(
    completions: Sequence[tuple[int, int]], *, final_correct: bool
) -> tuple[float, ...]:
    """A label in [0, 1] for each step of a response.

    ``completions`` has (right, drawn) for every step but the last: the share of completions from its end that reach the
    right answer. After the last step nothing is left to complete, so its label is 1 or 0. Raises ``ValueError`` when a
    step has no completions or more right ones than drawn.
    """
    for right, drawn in completions:
        if not 0 <= right <= drawn or not drawn:
            raise ValueError(f"{right} right of {drawn} completions is no label")
    return (*(right / drawn for right, drawn in completions), float(final_correct))


def held_out(query_id: str, *, seed: int, share: float) -> bool:
    """Whether a question is kept from the PRM's training, to measure it on: a ``share`` of all questions is."""
    return unit(seed, "held out", query_id) < share
