"""Look at every row before any compute is spent: a bad row costs a message now, or a night later."""

from collections.abc import Callable, Iterable

from mstar.core.answers import unusable_answer
from mstar.data.images import check_image
from mstar.data.splits import Sample, Split
from mstar.errors import DataError

SHOWN = 5


def check_splits(
    splits: Iterable[Split],
    look: Callable[[str, Sample], object] | None = None,
    *,
    max_pixels: int | None = None,
) -> dict[str, int]:
    """Queries by split. Raises ``DataError`` naming the first few problems and how many there are in all.

    Looked for: empty question, empty or duplicate id (over all splits, so that test does not leak into training),
    answer that no check can parse, missing or corrupt image, or one above ``max_pixels``, which a run would refuse.
    Memory holds the ids only. ``look`` is shown every sample with its split's name.
    """
    problems: list[str] = []
    found = 0
    seen: dict[str, str] = {}
    counts: dict[str, int] = {}
    for split in splits:
        counts[split.name] = 0
        fine = b""
        for sample in split.read():
            counts[split.name] += 1
            # Questions about one image come one after another, and decoding it costs more than all else here.
            seen_before = sample.image and sample.image == fine
            bad = None if seen_before else _bad_image(sample, split.name, max_pixels)
            fine = b"" if bad else sample.image
            for problem in (*_problems(sample, split.name, seen), *([bad] if bad else [])):
                found += 1
                if found <= SHOWN:
                    problems.append(problem)
            if look is not None:
                look(split.name, sample)
        if counts[split.name] == 0:
            raise DataError(f"split {split.name} has no queries")
    if found:
        more = f"\n  and {found - SHOWN} more" if found > SHOWN else ""
        raise DataError("the data set cannot be used:\n  " + "\n  ".join(problems) + more)
    return counts


def _problems(sample: Sample, split: str, seen: dict[str, str]) -> list[str]:
    query = sample.query
    label = f"{split} query {query.id!r}"
    problems = []
    if not query.id.strip():
        problems.append(f"{split}: a query has an empty id (question {query.question[:40]!r})")
    elif query.id in seen:
        problems.append(f"{label}: duplicate id, already in {seen[query.id]}")
    seen[query.id] = split
    if not query.question.strip():
        problems.append(f"{label}: the question is empty")
    if reason := unusable_answer(query.answer, query.options):
        problems.append(f"{label}: {reason}")
    return problems


def _bad_image(sample: Sample, split: str, max_pixels: int | None) -> str | None:
    try:
        check_image(sample.image, sample.query.id, max_pixels)
    except DataError as error:
        return f"{split} {error}"
    return None
