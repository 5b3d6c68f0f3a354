"""From responses to verdicts, and from verdicts to totals and sub-scores. Pure, but for what the judge does."""

from collections.abc import Iterable, Mapping, Sequence

from mstar.benchmarks.judge import Judge, Tell
from mstar.benchmarks.records import Benchmark, Count, Item, Reader, Scores, Verdict

VANILLA = "vanilla"
"""Accuracy of unrotated questions alone, beside a circular score."""


def judge_responses(
    benchmark: Benchmark,
    items: Sequence[Item],
    responses: Mapping[str, str],
    judge: Judge | None,
    tell: Tell,
) -> dict[str, Verdict]:
    """One verdict a question, by its id.

    Judge or fallback come in only where the rule reads no answer; the fallback where there is no judge, or none that
    replies.
    """
    answers = {item.id: benchmark.extract(item, responses[item.id]) for item in items}
    unread = [item for item in items if answers[item.id] is None and responses[item.id].strip()]
    replies: Sequence[str | None] = [None] * len(unread)
    if judge:
        replies = judge.replies([benchmark.ask(x, responses[x.id]) for x in unread], tell)
    by = dict.fromkeys(answers, Reader.RULE)
    for item, reply in zip(unread, replies, strict=True):
        if reply is None:
            answers[item.id] = benchmark.fallback(item, responses[item.id])
        else:
            answers[item.id] = benchmark.hear(item, reply)
        by[item.id] = Reader.FALLBACK if reply is None else Reader.JUDGE
    return {
        item.id: Verdict(
            answer=answer,
            correct=answer is not None and benchmark.correct(item, answer),
            by=by[item.id],
        )
        for item in items
        for answer in (answers[item.id],)
    }


def score(benchmark: Benchmark, items: Iterable[Item], verdicts: Mapping[str, Verdict]) -> Scores:
    """Totals and sub-scores over the benchmark's own questions.

    A circular question counts once, under the facets of its unrotated form (or the first that is there).
    """
    kept = [item for item in items if benchmark.keep(item)]
    groups: dict[str, list[Item]] = {}
    for item in kept:
        key = item.group if benchmark.circular else item.id
        groups.setdefault(key, []).append(item)
    sections: dict[str, dict[str, list[bool]]] = {name: {} for name in benchmark.sections}
    hits: list[bool] = []
    plain: list[bool] = []
    for key, rotations in groups.items():
        main = next((item for item in rotations if item.id == key), rotations[0])
        hit = all(verdicts[item.id].correct for item in rotations)
        hits.append(hit)
        plain.append(verdicts[main.id].correct)
        for name in benchmark.sections:
            for value in main.facets.get(name, ()):
                sections[name].setdefault(value, []).append(hit)
    counted = {
        name: {value: _count(found) for value, found in values.items()}
        for name, values in sections.items()
    }
    averages = {}
    if benchmark.circular:
        averages[VANILLA] = _count(plain).accuracy
    if over := benchmark.average_over:
        shares = [count.accuracy for count in counted[over].values()]
        averages[f"mean over {over}"] = sum(shares) / len(shares) if shares else 0.0
    told = [verdicts[item.id] for item in kept]
    return Scores(
        benchmark=benchmark.name,
        title=benchmark.title,
        overall=_count(hits),
        sections=counted,
        averages=averages,
        responses=len(told),
        unread=sum(verdict.answer is None for verdict in told),
        by_judge=_read_by(told, Reader.JUDGE),
        by_fallback=_read_by(told, Reader.FALLBACK),
    )


def _read_by(verdicts: Sequence[Verdict], reader: Reader) -> int:
    return sum(verdict.by is reader and verdict.answer is not None for verdict in verdicts)


def _count(found: Sequence[bool]) -> Count:
    return Count(correct=sum(found), total=len(found))
