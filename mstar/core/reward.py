"""How good a response is: ``R = 1(correct) * R_p``, ``R_p`` the lowest score of its steps (paper, section 3.3)."""

from collections.abc import Sequence
from math import isfinite

from mstar.core.records import Grade


def process_reward(step_scores: Sequence[float]) -> float:
    """The lowest step score: a solution is as good as its worst step.

    Raises ``ValueError`` when there is no score, or one is NaN or infinite: with those, no ranking means anything.
    """
    if not step_scores:
        raise ValueError("no step scores: a response is ranked only after the PRM scored its steps")
    if not all(map(isfinite, step_scores)):
        raise ValueError(f"step scores must be finite, found {list(step_scores)}")
    return min(step_scores)


def reward(grade: Grade, step_scores: Sequence[float]) -> float:
    """``process_reward`` of a right response, 0 of a wrong one. Raises as ``process_reward`` for a right one.

    The process reward is a regression and may lie outside [0, 1], so a right response can get less than 0:
    ``selection`` drops what is wrong before it ranks, rather than rank by this.
    """
    return process_reward(step_scores) if grade.correct else 0.0
