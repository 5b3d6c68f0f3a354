"""What was gained: the final comparison, and accuracy by iteration."""

from collections.abc import Sequence

from mstar.core.metrics import wilson_interval
from mstar.report.charts import Chart, Point, Series, range_bar
from mstar.report.figures import Section, absent, figure, iteration_axis, share_axis, table
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import decimal, percent, points, whole
from mstar.report.table import Row, results_table
from mstar.report.views import Evaluation, RunView

NEUTRAL = 5
"""The style of what belongs to no run."""


def results_section(runs: Sequence[RunView]) -> Section:
    """The final comparison on the held-out test set."""
    rows = results_table(runs)
    body: list[Child] = []
    styles = {run.name: index for index, run in enumerate(runs)}
    if rows:
        body.append(_results(rows, styles))
    body += [absent(text) for text in _tests_missing(runs)]
    return Section(
        id="results", title="Result on the held-out test set", short="Result", body=join(body)
    )


def headline(rows: Sequence[Row]) -> str | None:
    """The result in one sentence, once there are a first and a last policy to compare."""
    finals = [row for row in rows if row.key == "final"]
    first = next((row for row in rows if row.key == "base"), None)
    if not finals or first is None:
        return None
    best = max(finals, key=lambda row: row.accuracy.value)
    warm = next((row for row in rows if row.key == "warm-up"), None)
    after = f"{percent(warm.accuracy.value)} after the warm-up and " if warm else ""
    gain = (best.accuracy.value - first.accuracy.value) * 100
    return (
        f"On {whole(first.accuracy.n)} held-out questions, greedy accuracy goes from {percent(first.accuracy.value)} "
        f"(base) to {after}{percent(best.accuracy.value)} with {best.label}: {points(gain / 100)} points."
    )


def _results(rows: Sequence[Row], styles: dict[str, int]) -> Html:
    lines: list[list[Child]] = []
    for row in rows:
        share = row.accuracy
        style = styles[row.run] if row.key == "final" else NEUTRAL
        lines.append(
            [
                row.label,
                el("td", range_bar(share.value, share.low, share.high, style), class_="drawn"),
                el("strong", percent(share.value)),
                f"{percent(share.low)} to {percent(share.high)}",
                f"{percent(row.pass_at)}",
                whole(share.n),
                decimal(row.minutes, 1),
            ]
        )
    k = next((row.k for row in rows if row.k), None)
    head = [
        "Policy",
        el("span", "0 to 100 %", class_="scale-name"),
        "Accuracy",
        "95 % interval",
        f"Pass@{k}" if k else "Pass@K",
        "Questions",
        "Minutes",
    ]
    caption = (
        "Greedy accuracy with its 95 % Wilson interval. Pass@K is the chance that K samples hold a right answer. "
        "Minutes are the work of the run's steps from its first to this test; a run's final policy includes all before."
    )
    return table(caption, head, lines, class_="results", label="Results")


def _tests_missing(runs: Sequence[RunView]) -> list[str]:
    found = []
    for run in runs:
        if run.spec.data.test is None:
            found.append(f"{run.name}: no test, because its spec names no test split (data.test).")
        elif "final" not in run.tests:
            found.append(f"{run.name}: no final policy was tested yet; the run is {run.progress}.")
    return found


def accuracy_section(runs: Sequence[RunView]) -> Section:
    """Greedy accuracy and Pass@K on validation by iteration."""
    greedy, passing = [], []
    k = common_k(runs)
    temperature = common_temperature(runs)
    for style, run in enumerate(runs):
        evaluated = [(i.index, i.evaluation) for i in run.iterations if i.evaluation]
        lines = [_greedy_point(run, index, found) for index, found in evaluated]
        greedy.append(Series(name=run.name, points=_known(lines), style=style))
        lines = [_pass_point(run, index, found, k, temperature) for index, found in evaluated]
        passing.append(Series(name=run.name, points=_known(lines), style=style))
    body: list[Child] = []
    if any(series.points for series in greedy):
        body.append(
            el(
                "div",
                _by_iteration("Greedy accuracy", greedy, "Greedy accuracy on validation."),
                _by_iteration(
                    f"Pass@{k}",
                    passing,
                    f"Pass@{k} on validation at temperature {temperature:g} or the nearest that was sampled.",
                )
                if k and any(series.points for series in passing)
                else absent("Pass@K: no evaluation sampled at a temperature."),
                class_="pair",
            )
        )
        body.append(el("p", _validation_note(runs), class_="note"))
    body += [
        absent(f"{run.name}: no iteration is evaluated yet; the run is {run.progress}.")
        for run in runs
        if not any(i.evaluation for i in run.iterations)
    ]
    return Section(
        id="accuracy",
        title="Accuracy and Pass@K by iteration",
        short="By iteration",
        body=join(body),
    )


def _validation_note(runs: Sequence[RunView]) -> str:
    sizes = sorted({i.evaluation.queries for run in runs for i in run.iterations if i.evaluation})
    return (
        f"Measured on {' or '.join(map(whole, sizes))} validation questions. Bands are 95 % Wilson intervals. "
        "Iteration 0 is the policy that evolving starts from."
    )


def common_k(runs: Sequence[RunView]) -> int | None:
    """The largest K that every run's evaluations know."""
    sizes = [
        i.evaluation.largest_k
        for run in runs
        for i in run.iterations
        if i.evaluation and i.evaluation.largest_k
    ]
    return min(sizes, default=None)


def common_temperature(runs: Sequence[RunView]) -> float:
    """The temperature at which most evaluations sampled; of several, the one nearest to 1."""
    seen = [
        point.temperature
        for run in runs
        for i in run.iterations
        if i.evaluation
        for point in i.evaluation.sampled
    ]
    return max(set(seen), key=lambda t: (seen.count(t), -abs(t - 1)), default=1.0)


def _by_iteration(name: str, series: Sequence[Series], caption: str) -> Html:
    drawn = tuple(line for line in series if line.points)
    values = [
        v for line in drawn for p in line.points for v in (p.y, p.low, p.high) if v is not None
    ]
    last = max(int(p.x) for line in drawn for p in line.points)
    chart = Chart(
        label=f"{name} by iteration",
        series=drawn,
        x=iteration_axis(last),
        y=share_axis(name, values),
    )
    return figure(chart, caption)


def _greedy_point(run: RunView, index: int, found: Evaluation) -> Point | None:
    share = found.greedy
    if share is None:
        return None
    note = (
        f"{run.name}, iteration {index}: {percent(share.value)} "
        f"({percent(share.low)} to {percent(share.high)}) of {share.n}"
    )
    return Point(x=index, y=share.value, low=share.low, high=share.high, note=note)


def _pass_point(
    run: RunView, index: int, found: Evaluation, k: int | None, temperature: float
) -> Point | None:
    sampled = found.nearest(temperature)
    if sampled is None or k is None or k not in sampled.pass_at:
        return None
    value = sampled.pass_at[k]
    low = high = None
    if k == found.samples:  # then it is the share of questions with a right sample
        low, high = wilson_interval(round(value * found.queries), found.queries)
    note = f"{run.name}, iteration {index}: Pass@{k} {percent(value)} at temperature {sampled.temperature:g}"
    return Point(x=index, y=value, low=low, high=high, note=note)


def _known(found: Sequence[Point | None]) -> tuple[Point, ...]:
    return tuple(point for point in found if point)
