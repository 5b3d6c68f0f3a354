"""What an analysis says in sentences: only what its intervals carry."""

from collections.abc import Iterator

from mstar.analysis.records import Analysis, Contrast, Estimate, Survival
from mstar.report.scale import decimal, percent, points

MEASURES = {
    "steps": "steps",
    "tokens": "tokens",
    "relevant_steps": "relevant steps",
    "operations_shown": "operations shown",
    "sound": "sound rationales",
}
"""What is measured of a response, as a person calls it; the last three are shares that the generator knows."""

SHARES = frozenset({"relevant_steps", "operations_shown", "sound"})


def sentences(found: Analysis) -> Iterator[str]:
    """The findings, one at a time."""
    verification = found.verification
    largest = verification.sizes[-1]
    best, majority = (
        verification.curves[name][-1].value for name in ("best_of_n", "majority_vote")
    )
    difference = verification.differences["best_of_n - majority_vote"][-1]
    yield (
        f"As a verifier: Best-of-{largest} is right on {percent(best)} of {difference.n} questions, majority voting on "
        f"{percent(majority)}; {in_points(difference)} points, {direction(difference, 'better', 'worse')}."
    )
    for name, high, low in (
        ("steps", "longer", "shorter"),
        ("relevant_steps", "more relevant", "less relevant"),
        ("operations_shown", "more complete", "less complete"),
    ):
        if contrast := found.sampled.contrasts.get(name):
            yield _of_top(found.top, name, contrast, high, low)
    if found.judgement and found.judgement.contrast:
        contrast = found.judgement.contrast
        yield (
            f"The judge gives the Top-{found.top} {decimal(contrast.top.value)} of 10 and the others "
            f"{decimal(contrast.other.value)}: {in_numbers(contrast.difference)}, "
            f"{direction(contrast.difference, 'more relevant', 'less relevant')}."
        )
    if survival := chosen_survival(found):
        kept = 1 - survival.some.value
        yield (
            f"A threshold at {survival.alpha:g}, which tells right from wrong best, keeps all or none of the right "
            f"responses of {percent(kept)} of the questions."
        )


def chosen_survival(found: Analysis) -> Survival | None:
    """What the best threshold leaves of the samples; None where none is best."""
    return next(
        (
            s
            for s in found.sampled.survivals
            if s.alpha is not None and s.alpha == found.sampled.alpha
        ),
        None,
    )


def direction(difference: Estimate, high: str, low: str) -> str:
    """``high`` or ``low`` when the interval leaves out 0, else that it cannot be told."""
    if difference.low > 0:
        return high
    return low if difference.high < 0 else "which cannot be told apart from none"


def in_points(difference: Estimate) -> str:
    """A difference of shares with its interval, in percentage points."""
    return f"{points(difference.value)} ({points(difference.low)} to {points(difference.high)})"


def in_numbers(difference: Estimate, digits: int = 2) -> str:
    """A difference with its interval."""
    low, high = decimal(difference.low, digits), decimal(difference.high, digits)
    sign = "+" if difference.value > 0 else ""
    return f"{sign}{decimal(difference.value, digits)} ({low} to {high})"


def of_measure(name: str, difference: Estimate) -> str:
    """A difference in the unit of its measure."""
    return in_points(difference) if name in SHARES else in_numbers(difference)


def level(name: str, value: float) -> str:
    """A mean in the unit of its measure."""
    return percent(value) if name in SHARES else decimal(value)


def _of_top(top: int, name: str, contrast: Contrast, high: str, low: str) -> str:
    unit = " points" if name in SHARES else ""
    return (
        f"The Top-{top} have {level(name, contrast.top.value)} {MEASURES[name]}, the other right responses "
        f"{level(name, contrast.other.value)}: {of_measure(name, contrast.difference)}{unit}, "
        f"{direction(contrast.difference, high, low)}."
    )
