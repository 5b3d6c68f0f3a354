"""Scores as the official tools print them: the same words, order and number of digits; and a table over all."""

from collections.abc import Mapping, Sequence

from mstar.benchmarks.records import Benchmark, Count, Scores
from mstar.core.metrics import wilson_interval

DIVIDER = "=" * 40


def mathvista_text(scores: Scores) -> str:
    """As ``calculate_score.py``: the total, then a table a section, best first."""
    total = scores.overall
    lines = [f"Correct: {_parts(total)} - Accuracy: {total.accuracy * 100:.2f}%", DIVIDER]
    for section, values in scores.sections.items():
        ordered = dict(sorted(values.items(), key=lambda pair: -pair[1].accuracy))
        width = max(map(len, ordered), default=0)
        lines += ["", section, DIVIDER, f"{'':<{width}} {'Accuracy':>8} {'Correct/Total':>13}"]
        lines += [
            f"{value:<{width}} {f'{count.accuracy * 100:.2f}%':>8} {f'({_parts(count)})':>13}"
            for value, count in ordered.items()
        ]
    return "\n".join(lines)


def harness_text(scores: Scores) -> str:
    """As VLMEvalKit's ``*_acc.csv``: Overall, abilities, then categories, as fractions."""
    named = {"Overall": scores.overall}
    for values in scores.sections.values():
        named |= dict(sorted(values.items()))
    header = ",".join(f'"{name}"' for name in named)
    return f"{header}\n" + ",".join(f'"{count.accuracy}"' for count in named.values())


def mmstar_text(scores: Scores) -> str:
    """As the authors' ``MMStar_eval``: the final score, then each category and its subcategories, as fractions."""
    lines = [f"final score:{scores.overall.accuracy}"]
    for category, count in sorted(scores.sections["category"].items()):
        lines.append(f"{category}:{count.accuracy}")
        lines += [
            f"{value}:{finer.accuracy}"
            for value, finer in sorted(scores.sections["l2_category"].items())
            if value.startswith(f"{category}(")
        ]
    return "\n".join(lines)


def m3cot_text(scores: Scores) -> str:
    """As ``evaluate.py --metric_by topic``, by domain too: percentages, then the total."""
    rows: list[tuple[str, str, Count]] = []
    topics: Mapping[str, Count] = scores.sections["topic"]
    for domain, count in sorted(scores.sections["domain"].items()):
        rows.append((domain, "", count))
        rows += [
            (domain, value.removeprefix(f"{domain}/"), found)
            for value, found in sorted(topics.items())
            if value.startswith(f"{domain}/")
        ]
    wide = max((len(domain) for domain, _, _ in rows), default=0)
    wider = max((len(topic) for _, topic, _ in rows), default=0)
    lines = [f"{'domain':<{wide}} {'topic':<{wider}}    Acc"]
    lines += [
        f"{domain:<{wide}} {topic:<{wider}} {count.accuracy * 100:>6.2f}"
        for domain, topic, count in rows
    ]
    total = scores.overall
    return "\n".join([*lines, f"Total: {total.total}, Correct: {total.accuracy * 100:.2f}%"])


def summary_text(benchmarks: Sequence[Benchmark], scores: Sequence[Scores]) -> str:
    """One line a benchmark: accuracy with its 95 % Wilson interval, other totals, and how the answers were read.

    Of fewer questions than are published, it says of how many.
    """
    rows = [("benchmark", "accuracy [95 %]", "right", "unread", "judge", "fallback", "also")]
    for benchmark, found in zip(benchmarks, scores, strict=True):
        count = found.overall
        low, high = wilson_interval(count.correct, count.total)
        whole = benchmark.questions
        rows.append(
            (
                found.title,
                f"{count.accuracy:.1%} [{low:.1%}, {high:.1%}]",
                _parts(count) + (f" of {whole}" if whole not in {0, count.total} else ""),
                str(found.unread),
                str(found.by_judge),
                str(found.by_fallback),
                ", ".join(f"{name} {value:.1%}" for name, value in found.averages.items()),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _parts(count: Count) -> str:
    return f"{count.correct}/{count.total}"
