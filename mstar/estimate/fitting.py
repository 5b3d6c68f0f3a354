"""What of a plan does not fit: a GPU's memory, a quota, GPUs that nobody uses. As sentences that say what to do."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mstar.cluster import Stage
from mstar.estimate.assumptions import Assumptions
from mstar.estimate.bill import Bucket
from mstar.estimate.hardware import Gpu
from mstar.estimate.layout import Layout, setup_of
from mstar.estimate.memory import Verdict, advised, generating, scoring, together, verdict
from mstar.estimate.models import ModelFacts
from mstar.estimate.ranges import Range
from mstar.estimate.speed import Lengths
from mstar.estimate.work import Work

GIGA = 1e9


def verdicts(
    works: Iterable[Work],
    places: Mapping[Stage, Layout],
    models: Mapping[str, ModelFacts],
    lengths: Mapping[str, Lengths],
    gpu: Gpu,
    numbers: Assumptions,
    *,
    most: int,
    width: float,
) -> list[Verdict]:
    """Each kind of step that is to be made against a GPU's memory, once.

    ``most`` is the most tokens of a response, ``width`` the bytes of a number in sampling and scoring.
    """
    found: dict[tuple[str, Range], Verdict] = {}
    for work in works:
        place = places[work.stage]
        if work.adopted:
            continue
        if work.optimization:
            setup = setup_of(place.execution, work.optimization, place.parallel)
            facts = models[work.model]
            each = advised(facts, setup, work.optimization, lengths[work.model], gpu, numbers)
            found.setdefault((each.need.who, each.need.bytes), each)
            continue
        needs = []
        if work.prompts.high:
            facts = models[work.model]
            needs.append(generating(facts, place.execution, lengths[work.model], width, most))
        if work.prm:
            needs.append(scoring(models[work.prm], place.execution, lengths[work.prm], width))
        if needs:
            need = together(needs[0], needs[1]) if len(needs) == 2 else needs[0]
            each = _with_rows(work, place, verdict(need, gpu, numbers))
            found.setdefault((need.who, need.bytes), each)
    return list(found.values())


def _with_rows(work: Work, place: Layout, found: Verdict) -> Verdict:
    """Which rows would fit, where sampling or scoring does not."""
    if found.fits:
        return found
    weights = found.need.parts["weights"].high
    rest = found.need.bytes.high - weights
    left = found.room.low - weights
    execution = place.execution
    said = []
    if left > 0 and rest > 0:
        rows = {"scoring_rows": int(execution.scoring_rows * left / rest)} if work.prm else {}
        if work.prompts.high and execution.engine == "transformers":
            rows["sampling_rows"] = int(execution.sampling_rows * left / rest)
        said = [f"execution.{name}={count}" for name, count in rows.items() if count]
    return replace(found, advice=(", ".join(said) or "a larger GPU, or a smaller model",))


def memory_warnings(found: Iterable[Verdict]) -> list[str]:
    """A sentence for each need that does not surely fit."""
    said = []
    for each in found:
        if each.fits:
            continue
        may = "cannot fit" if each.fits is False else "may not fit"
        parts = ", ".join(
            f"{name} {gigabytes(part)}" for name, part in each.need.parts.items() if part.high
        )
        said.append(
            f"{each.need.who} {may}: it needs {gigabytes(each.need.bytes)} GB a GPU ({parts}), of which "
            f"{gigabytes(each.room)} GB are to be had. What would fit: {'; or '.join(each.advice)}."
        )
    return said


def quota_warnings(store: Bucket, quota: float | None) -> list[str]:
    """A sentence when the store outgrows ``quota`` bytes."""
    if quota is None or store.peak.high <= quota:
        return []
    may = "will" if store.peak.low > quota else "may"
    after = "even swept" if store.swept.low > quota else "swept at the end"
    said = (
        f"the store {may} need {gigabytes(store.peak)} GB, above the quota of {quota / GIGA:.0f} GB; {after} it holds "
        f"{gigabytes(store.swept)} GB (mstarctl gc --drop-trainer-state, once the run is finished)"
    )
    return [said]


def idle_warnings(places: Mapping[Stage, Layout], *, local: bool) -> list[str]:
    """Sentences on GPUs that the spec leaves open, or holds and does not use."""
    said = []
    unnamed = [stage for stage, place in places.items() if not place.named]
    if unnamed and not local:
        counted = "one for each pod (for train: for each rank) is counted"
        said.append(f"cluster.stages names no GPU for {', '.join(unnamed)}: {counted}")
    for stage, place in places.items():
        if place.devices > place.used:
            said.append(
                f"each pod of {stage} holds {place.devices} GPUs, of which {place.used} can work: all are paid for"
            )
    return said


def gigabytes(size: Range) -> str:
    """A range of bytes in GB."""
    low, high = (
        f"{end / GIGA:.1f}" if end < 100 * GIGA else f"{end / GIGA:.0f}"
        for end in (size.low, size.high)
    )
    return low if low == high else f"{low} to {high}"
