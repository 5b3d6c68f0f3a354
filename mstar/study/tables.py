"""The page's tables: rows with their intervals, differences, every seed, equal amounts, what adoption saved."""

from collections.abc import Sequence

from mstar.core.comparison import Estimate
from mstar.report.charts import range_bar
from mstar.report.figures import Section, absent, table
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import duration, percent, points, whole
from mstar.study.claims import Verdict, verdict_of
from mstar.study.compare import MEASURES, Result, RowResult, accuracy, adoption_of
from mstar.study.records import CellRecord
from mstar.study.summary import Summary

NEUTRAL = 5
"""The style of what is compared with: baseline, base and warm-up."""

OURS = 0


def results_section(summary: Summary) -> Section:
    """Every row's accuracy on the test questions, with the paper's numbers beside it."""
    lines: list[list[Child]] = [
        _result_line(phase, found, NEUTRAL, "–", "–") for phase, found in _starts(summary)
    ]
    for row in summary.rows:
        style = NEUTRAL if row.name == summary.baseline else OURS
        lines.append(_result_line(_name(row), row.overall, style, _gain(row, summary), _paper(row)))
    against = f"Against {summary.baseline}" if summary.baseline else "Difference"
    head: list[Child] = [
        "Row",
        el("span", "0 to 100 %", class_="scale-name"),
        "Accuracy",
        "95 % interval",
        against,
        "Questions",
        "Paper",
    ]
    caption = (
        "Greedy accuracy of the last policy, mean over seeds and bases. The interval is for other seeds and other "
        "questions (Student's, crossed; Wilson's where there is one cell). Differences are in percentage points, "
        "paired by seed, base and question. The paper's numbers are of its own models: in-domain / MathVista, per cent."
    )
    found = _explained(caption, "Results of the rows", head, lines, class_="results")
    return Section(id="results", title="Rows side by side", short="Rows", body=found)


def difference_section(summary: Summary) -> Section:
    """Each row less the baseline, on a common scale."""
    title, short = "Differences to the baseline", "Differences"
    if summary.baseline is None:
        why = absent("The study names no baseline, so there are no differences to show.")
        return Section(id="differences", title=title, short=short, body=why)
    known = [(row, row.difference) for row in summary.rows if row.difference]
    if not known:
        why = absent(f"No row has a cell in common with {summary.baseline} yet.")
        return Section(id="differences", title=title, short=short, body=why)
    reach = max(
        abs(value) for _, d in known for value in (d.mean, d.low, d.high) if value is not None
    )
    reach = max(reach, 0.01)
    lines: list[list[Child]] = []
    for row, found in sorted(known, key=lambda item: -item[1].mean):
        low, high = _ends(found)
        at, left, right = ((value + reach) / (2 * reach) for value in (found.mean, low, high))
        lines.append(
            [
                row.name,
                el("td", range_bar(at, left, right, OURS), class_="drawn"),
                el("strong", points(found.mean)),
                _span(found),
                _reading(found),
                whole(row.overall.questions if row.overall else None),
                whole(row.pairs),
            ]
        )
    scale = f"{points(-reach)} to {points(reach)}"
    head = [
        "Row",
        el("span", scale, class_="scale-name"),
        "Points",
        "95 % interval",
        "Reading",
        "Questions",
        "Pairs",
    ]
    caption = (
        f"Accuracy of a row less that of {summary.baseline}, in percentage points, over the cells that both have "
        "(pairs of seed and base). Each row is compared at 95 %: of twenty rows that differ in nothing, one is "
        "expected to seem to."
    )
    body = _explained(caption, title, head, lines, class_="results")
    return Section(id="differences", title=title, short=short, body=body)


def claims_section(summary: Summary) -> Section | None:
    """What the study set out to see, and whether it shows; None when it claims nothing."""
    if not summary.claims:
        return None
    lines: list[list[Child]] = []
    for judged in summary.claims:
        claim, found = judged.claim, judged.measured
        against = f"{claim.row} over {claim.over}" if claim.over else claim.row
        how = el("span", f"({against}, by {claim.by})", class_="note")
        lines.append(
            [
                join(el("b", claim.name), " ", claim.says, " ", how),
                el("strong", judged.verdict.value),
                points(found.difference.mean) if found else "–",
                _span(found.difference) if found else "–",
                whole(found.pairs if found else None),
                whole(found.questions if found else None),
                claim.paper or "–",
            ]
        )
    head: list[Child] = [
        "Claim",
        "Verdict",
        "Points",
        "95 % interval",
        "Pairs",
        "Questions",
        "The paper's evidence",
    ]
    caption = (
        "Each claim is a difference said to be above zero, in percentage points: seen when its whole interval is, not "
        "seen when its whole interval is below, and else not to be told from these cells."
    )
    body = _explained(caption, "Claims", head, lines, class_="claims")
    return Section(id="claims", title="What was claimed, and what shows", short="Claims", body=body)


def cells_section(summary: Summary) -> Section:
    """Every seed and every base by itself: seeds may differ as much as methods do."""
    pairs = list(dict.fromkeys(record.pair for record in summary.records))
    if not pairs:
        body = absent("No cell is finished yet.")
        return Section(id="cells", title="Every seed", short="Seeds", body=body)
    head: list[Child] = ["Row", *(_pair(pair) for pair in pairs)]
    head += [f"mean on {name}" for name in summary.bases if len(summary.bases) > 1]
    lines: list[list[Child]] = []
    for row in summary.rows:
        by_pair = {record.pair: record for record in row.cells}
        line: list[Child] = [row.name]
        line += [percent(accuracy(by_pair[pair])) if pair in by_pair else "–" for pair in pairs]
        if len(summary.bases) > 1:
            line += [_short(row.by_base.get(name)) for name in summary.bases]
        lines.append(line)
    caption = "Greedy accuracy on the test questions of each cell's last policy."
    body = _explained(caption, "Accuracy of every cell", head, lines)
    return Section(id="cells", title="Every seed", short="Seeds", body=body)


def equal_table(summary: Summary, what: str) -> Html:
    """Rows where they had the same amount of ``what``: all of them, and each with the baseline."""
    name = MEASURES[what]
    known = [(row, row.equal[what]) for row in summary.rows if what in row.equal]
    if not known:
        return absent(f"Equal {name}: no row has more than one evaluation on validation yet.")
    at = known[0][1].at
    lines: list[list[Child]] = [
        [
            row.name,
            whole(found.total),
            percent(found.accuracy.mean) if found.accuracy else "–",
            _shares(found.accuracy),
            whole(found.against),
            points(found.difference.mean) if found.difference else "–",
            _span(found.difference),
        ]
        for row, found in known
    ]
    baseline = summary.baseline or "the baseline"
    head = [
        "Row",
        f"{name} in all",
        f"Accuracy at {whole(at)}",
        "95 % interval",
        "Both had",
        f"Less {baseline} there",
        "95 % interval",
    ]
    caption = join(
        el("b", f"Equal {name}. "),
        f"Greedy accuracy on validation, read on the line between two evaluations, at {whole(at)} {name}, where the "
        f"row that had the fewest ends; and against {baseline}, where the one of the two that had fewer ends. "
        "Intervals are for other seeds.",
    )
    return _explained(caption, f"Rows at equal {name}", head, lines)


def unmeasured(summary: Summary) -> list[Html]:
    """Rows that cannot be compared at equal amounts, with the reason."""
    single = [row.name for row in summary.rows if row.cells and "updates" not in row.equal]
    if not single:
        return []
    rows = ", ".join(single)
    return [
        absent(f"{rows}: evaluated once only, so there is no curve to read an equal amount from.")
    ]


def adoption_section(summary: Summary) -> Section:
    """Steps that another run had made, and the step-time that adopting them saved."""
    saved = summary.adoption
    title, short = "What sharing saved", "Sharing"
    if not saved.steps:
        body = absent("No cell is finished yet.")
        return Section(id="sharing", title=title, short=short, body=body)
    said = (
        f"{whole(saved.adopted)} of {whole(saved.steps)} steps were adopted from another run. Without that the study "
        f"would have taken {duration(saved.seconds + saved.saved)} of step-time; it took {duration(saved.seconds)}: "
        f"{percent(saved.share, 0)} was saved."
    )
    lines: list[list[Child]] = []
    for row in summary.rows:
        if row.cells:
            cost = adoption_of(row.cells)
            lines.append(
                [
                    row.name,
                    whole(cost.steps),
                    whole(cost.adopted),
                    duration(cost.seconds),
                    duration(cost.saved),
                    percent(cost.share, 0),
                ]
            )
    head = ["Row", "Steps", "Adopted", "Time made", "Time saved", "Share saved"]
    caption = "A step is made by whichever row comes to it first; its time stands there."
    found = _explained(caption, "What adoption saved, by row", head, lines)
    return Section(id="sharing", title=title, short=short, body=join(el("p", said), found))


def missing_section(summary: Summary) -> Section | None:
    """Cells without results, with their errors, and records that are in no mean; None when there are neither."""
    body: list[Child] = []
    failed = {trouble.cell.run for trouble in summary.troubles}
    if summary.troubles:
        items = (
            el(
                "li",
                el("b", trouble.cell.label),
                f" (run {trouble.cell.run}), exit code {trouble.exit_code}: {trouble.error}",
            )
            for trouble in summary.troubles
        )
        body += [el("h3", "Failed"), el("ul", items)]
    waiting = [cell.label for cell in summary.missing if cell.run not in failed]
    if waiting:
        body += [el("h3", "Not run yet"), el("p", "; ".join(waiting))]
    if summary.aside:
        items = (el("li", el("b", aside.cell.run), f": {aside.why}") for aside in summary.aside)
        body += [el("h3", "Set aside, and in no mean"), el("ul", items)]
    if not body:
        return None
    return Section(id="missing", title="What is missing", short="Missing", body=join(body))


def _explained(
    said: Child,
    label: str,
    head: Sequence[Child],
    lines: Sequence[Sequence[Child]],
    *,
    class_: str | None = None,
) -> Html:
    """A table below what is said of it: the words stay on a narrow screen while the table scrolls."""
    caption = el("span", label, class_="hidden")
    return join(
        el("p", said, class_="note"), table(caption, head, lines, class_=class_, label=label)
    )


def _starts(summary: Summary) -> list[tuple[str, Result]]:
    order = ("base", "warm-up")
    known = [item for item in summary.starts.items() if item[0].partition(" (")[0] in order]
    return sorted(known, key=lambda item: order.index(item[0].partition(" (")[0]))


def _result_line(
    name: Child, found: Result | None, style: int, gain: Child, paper: Child
) -> list[Child]:
    if found is None:
        return [name, el("td", class_="drawn"), "–", "–", gain, "–", paper]
    low, high = _ends(found.accuracy)
    return [
        name,
        el("td", range_bar(found.accuracy.mean, low, high, style), class_="drawn"),
        el("strong", percent(found.accuracy.mean)),
        _shares(found.accuracy),
        gain,
        whole(found.questions),
        paper,
    ]


def _name(row: RowResult) -> Child:
    if len(row.cells) == row.of:
        return row.name
    return join(row.name, " ", el("span", f"{len(row.cells)} of {row.of}", class_="badge"))


def _gain(row: RowResult, summary: Summary) -> Child:
    if row.name == summary.baseline:
        return "baseline"
    if row.difference is None:
        return "–"
    return f"{points(row.difference.mean)} ({_span(row.difference)})"


def _paper(row: RowResult) -> str:
    numbers = [(row.paper or {}).get(key) for key in ("in_domain", "mathvista")]
    return (
        " / ".join("–" if number is None else f"{number:g}" for number in numbers)
        if any(number is not None for number in numbers)
        else "–"
    )


def _reading(found: Estimate) -> str:
    words = {Verdict.SEEN: "better", Verdict.NOT_SEEN: "worse", Verdict.OPEN: "cannot be told"}
    return words[verdict_of(found)]


def _ends(found: Estimate) -> tuple[float, float]:
    low = found.mean if found.low is None else found.low
    high = found.mean if found.high is None else found.high
    return low, high


def _shares(found: Estimate | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "–"
    return f"{max(0.0, found.low) * 100:.1f} to {percent(min(1.0, found.high))}"


def _span(found: Estimate | None) -> str:
    if found is None or found.low is None or found.high is None:
        return "–"
    return f"{points(found.low)} to {points(found.high)}"


def _short(found: Result | None) -> str:
    return percent(found.accuracy.mean) if found else "–"


def _pair(pair: tuple[str | None, int]) -> str:
    base, seed = pair
    return f"{base}, seed {seed}" if base else f"seed {seed}"


def describe_cells(records: Sequence[CellRecord]) -> str:
    """How many seeds, bases and questions the results rest on, in words."""
    seeds = {record.seed for record in records}
    bases = {record.base for record in records if record.base}
    asked = sorted({record.final.count for record in records})
    on = f" on {len(bases)} bases" if len(bases) > 1 else ""
    plural = "s" if len(seeds) != 1 else ""
    return f"{len(seeds)} seed{plural}{on}, {' or '.join(map(whole, asked)) or 'no'} test questions"
