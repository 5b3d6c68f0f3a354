"""The page's figures: the paper's figures 3 to 5 for every row, by iteration, by updates and by temperature.

A line is the mean over a row's cells; its band reaches from the lowest cell to the highest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from mstar.report.charts import Axis, Chart, Point, Series
from mstar.report.figures import Section, absent, figure, iteration_axis, share_axis
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import decimal, nice_ticks, percent, points, whole
from mstar.study import records as kept
from mstar.study.compare import MEASURES, RowResult
from mstar.study.summary import Summary
from mstar.study.tables import NEUTRAL, equal_table, unmeasured

AT_ONCE = 5
"""Rows in one chart, the baseline aside: more cannot be told apart."""

TEMPERATURES = 2
"""From so many measured temperatures on there is something to draw against temperature."""

Measure = Callable[[kept.Point], float | None]
Value = Callable[[float], str]


def iteration_section(summary: Summary) -> Section:
    """Greedy, Pass@K, what is between them, and Reward-Pass@2 by iteration (paper, figures 3 and 5)."""
    title, short = "Dynamics by iteration", "By iteration"
    rows = [row for row in summary.rows if row.cells]
    k = _common_k(rows)
    temperature = _common_temperature(rows)
    body: list[Child] = []
    if not rows:
        body.append(absent("No cell is finished yet."))
    else:
        at = f"at temperature {temperature:g} or the nearest that was measured"
        measures: list[tuple[str, str, Measure, Value]] = [
            ("Greedy accuracy", "Greedy accuracy on validation.", lambda p: p.greedy, percent)
        ]
        if k is not None:
            measures += [
                (
                    f"Pass@{k}",
                    f"Pass@{k} on validation {at}.",
                    lambda p: _pass(p, temperature, k),
                    percent,
                ),
                (
                    f"Pass@{k} − Greedy",
                    f"What sampling still finds and greedy decoding does not, in points, {at}.",
                    lambda p: _left(p, temperature, k),
                    points,
                ),
            ]
        measures.append(
            (
                "Reward-Pass@2",
                f"A right response among the PRM's two best, {at}. Rows that ask no PRM have none.",
                lambda p: _reward(p, temperature),
                percent,
            )
        )
        for name, caption, measure, value in measures:
            body += [el("h3", name), *_charts(summary, rows, name, caption, measure, value)]
        body.append(el("p", _note(rows), class_="note"))
    return Section(id="iterations", title=title, short=short, body=join(body))


def equal_section(summary: Summary) -> Section:
    """The same amount of training for every row: updates, and queries."""
    body: list[Child] = []
    for what, name in MEASURES.items():
        body.append(equal_table(summary, what))
        rows = [row for row in summary.rows if what in row.equal]
        figures = [_by_amount(group, what, name) for group in _groups(rows, summary.baseline)]
        if figures:
            body.append(el("div", figures, class_="pair"))
    body += unmeasured(summary)
    title = "At equal updates and at equal queries"
    return Section(id="equal", title=title, short="Equal updates", body=join(body))


def temperature_section(summary: Summary) -> Section:
    """Pass@K − Greedy and Reward-Pass@2 against temperature, a line an iteration (paper, figures 3 to 5)."""
    body: list[Child] = []
    for row in summary.rows:
        k = _common_k([row])
        measured = _by_temperature(row)
        if k is None or not measured:
            continue
        pair = [
            _against_temperature(
                row,
                measured,
                f"Pass@{k} − Greedy",
                partial(_left, k=k, exact=True),
                points,
            ),
            _against_temperature(
                row, measured, "Reward-Pass@2", partial(_reward, exact=True), percent
            ),
        ]
        drawn = [one for one in pair if one]
        if drawn:
            summary_ = el("summary", el("b", row.name))
            body.append(el("details", summary_, el("div", drawn, class_="pair"), open=not body))
    if not body:
        body.append(absent("No row was evaluated at several temperatures."))
    title = "Dynamics by temperature"
    return Section(id="temperatures", title=title, short="By temperature", body=join(body))


def _charts(
    summary: Summary,
    rows: Sequence[RowResult],
    name: str,
    caption: str,
    measure: Measure,
    value: Value,
) -> list[Html]:
    """A chart for every few rows, all on one scale."""
    lines = {row.name: _line(row, measure, value) for row in rows}
    drawn = [row for row in rows if lines[row.name]]
    if not drawn:
        return [absent(f"{name}: no row has it.")]
    y = _axis(name, [point for line in lines.values() for point in line], value)
    last = max(int(point.x) for line in lines.values() for point in line)
    found = []
    for group in _groups(drawn, summary.baseline):
        series = tuple(
            Series(name=row.name, points=lines[row.name], style=style) for row, style in group
        )
        chart = Chart(label=f"{name} by iteration", series=series, x=iteration_axis(last), y=y)
        found.append(figure(chart, caption, value=value))
    return [el("div", found, class_="pair")]


def _by_amount(group: Sequence[tuple[RowResult, int]], what: str, name: str) -> Html:
    series = tuple(
        Series(name=row.name, points=_line(row, lambda p: p.greedy, percent, what), style=style)
        for row, style in group
    )
    everything = [point for line in series for point in line.points]
    ticks = nice_ticks(0, max(point.x for point in everything) or 1, 5)
    found = next(row.equal[what].at for row, _ in group)
    x = Axis(
        label=name,
        low=0,
        high=max(point.x for point in everything) or 1,
        ticks=tuple((tick, whole(tick)) for tick in ticks),
    )
    chart = Chart(
        label=f"Greedy accuracy by {name}",
        series=series,
        x=x,
        y=_axis("Greedy accuracy", everything, percent),
        marks=((found, f"all rows compared had {whole(found)}"),) if found is not None else (),
    )
    return figure(chart, f"Greedy accuracy on validation against {name} of evolving.", value=None)


def _line(
    row: RowResult, measure: Measure, value: Value, along: str = "iteration"
) -> tuple[Point, ...]:
    """The row's mean at each iteration, placed at the mean of what its cells had by then."""
    by_iteration: dict[int, list[kept.Point]] = {}
    for record in row.cells:
        for point in record.points:
            by_iteration.setdefault(point.iteration, []).append(point)
    line = []
    for iteration, found in sorted(by_iteration.items()):
        known = [(point, measured) for point in found if (measured := measure(point)) is not None]
        if not known:
            continue
        places = [float(getattr(point, along)) for point, _ in known]
        line.append(
            _mean_point(
                sum(places) / len(places),
                [measured for _, measured in known],
                f"{row.name}, iteration {iteration}",
                value,
            )
        )
    return tuple(line)


def _mean_point(x: float, values: Sequence[float], what: str, value: Value) -> Point:
    mean, low, high = sum(values) / len(values), min(values), max(values)
    several = len(values) > 1
    seeds = f", cells {value(low)} to {value(high)}" if several else ""
    return Point(
        x=x,
        y=mean,
        low=low if several else None,
        high=high if several else None,
        note=f"{what}: {value(mean)}{seeds}",
    )


def _against_temperature(
    row: RowResult,
    measured: Mapping[int, Sequence[float]],
    name: str,
    measure: Callable[[kept.Point, float], float | None],
    value: Value,
) -> Html | None:
    series = []
    for style, (iteration, temperatures) in enumerate(_spread(measured)):
        points_ = [point for r in row.cells for point in r.points if point.iteration == iteration]
        line = []
        for temperature in temperatures:
            known = [m for point in points_ if (m := measure(point, temperature)) is not None]
            if known:
                what = f"{row.name}, iteration {iteration}, temperature {temperature:g}"
                line.append(_mean_point(temperature, known, what, value))
        if line:
            label = f"iteration {iteration}"
            series.append(Series(name=label, points=tuple(line), style=style))
    if not series:
        return None
    everything = [point for line_ in series for point in line_.points]
    places = sorted({point.x for point in everything})
    air = (places[-1] - places[0]) * 0.03
    x = Axis(
        label="temperature",
        low=places[0] - air,
        high=places[-1] + air,
        ticks=tuple((place, decimal(place, 1)) for place in places),
    )
    label = f"{name} of {row.name} by temperature"
    chart = Chart(label=label, series=tuple(series), x=x, y=_axis(name, everything, value))
    return figure(chart, f"{name} on validation by temperature.", value=value)


def _by_temperature(row: RowResult) -> dict[int, list[float]]:
    """Temperatures by iteration, of the iterations that were evaluated at several."""
    found: dict[int, set[float]] = {}
    for record in row.cells:
        for point in record.points:
            found.setdefault(point.iteration, set()).update(s.temperature for s in point.sampled)
    return {
        iteration: sorted(temperatures)
        for iteration, temperatures in sorted(found.items())
        if len(temperatures) >= TEMPERATURES
    }


def _spread(measured: Mapping[int, Sequence[float]]) -> list[tuple[int, Sequence[float]]]:
    """At most as many iterations as can be told apart: the first, the last, and some between."""
    items = list(measured.items())
    most = AT_ONCE
    if len(items) <= most:
        return items
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _groups(rows: Sequence[RowResult], baseline: str | None) -> list[list[tuple[RowResult, int]]]:
    """Few rows at a time, each with its style, and the baseline in every group."""
    compared = [row for row in rows if row.name == baseline]
    others = [row for row in rows if row.name != baseline]
    groups = [others[start : start + AT_ONCE] for start in range(0, len(others), AT_ONCE)]
    return [
        [*((row, NEUTRAL) for row in compared), *((row, style) for style, row in enumerate(group))]
        for group in (groups or [[]])
        if compared or group
    ]


def _axis(name: str, drawn: Iterable[Point], value: Value) -> Axis:
    values = [v for p in drawn for v in (p.y, p.low, p.high) if v is not None]
    if value is percent:
        return share_axis(name, values)
    low, high = min(*values, 0.0), max(*values, 0.01)
    ticks = nice_ticks(low, high, 5)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 0.1
    low, high = step * (low // step), step * -(-high // step)
    ticks = nice_ticks(low, high, 5)
    return Axis(
        label=f"{name}, points",
        low=low,
        high=high,
        ticks=tuple((tick, points(tick, 0) if tick else "0") for tick in ticks),
    )


def _at(point: kept.Point, temperature: float, *, exact: bool = False) -> kept.Sampled | None:
    """What was measured at a temperature; unless ``exact``, at the nearest one."""
    nearest = min(
        point.sampled, key=lambda s: round(abs(s.temperature - temperature), 6), default=None
    )
    if nearest is None or (exact and abs(nearest.temperature - temperature) > 1e-6):
        return None
    return nearest


def _pass(point: kept.Point, temperature: float, k: int) -> float | None:
    sampled = _at(point, temperature)
    return sampled.pass_at.get(k) if sampled else None


def _left(point: kept.Point, temperature: float, k: int, *, exact: bool = False) -> float | None:
    sampled = _at(point, temperature, exact=exact)
    found = sampled.pass_at.get(k) if sampled else None
    return None if found is None or point.greedy is None else found - point.greedy


def _reward(point: kept.Point, temperature: float, *, exact: bool = False) -> float | None:
    sampled = _at(point, temperature, exact=exact)
    return sampled.reward_pass_at_2 if sampled else None


def _sampled(rows: Iterable[RowResult]) -> list[kept.Sampled]:
    return [s for row in rows for r in row.cells for point in r.points for s in point.sampled]


def _common_k(rows: Iterable[RowResult]) -> int | None:
    """The largest K that every evaluation knows."""
    return min((max(s.pass_at) for s in _sampled(rows) if s.pass_at), default=None)


def _common_temperature(rows: Iterable[RowResult]) -> float:
    """The temperature at which most evaluations sampled; of several, the one nearest to 1."""
    seen = [sampled.temperature for sampled in _sampled(rows)]
    return max(set(seen), key=lambda t: (seen.count(t), -abs(t - 1)), default=1.0)


def _note(rows: Iterable[RowResult]) -> str:
    asked = sorted({p.questions for row in rows for r in row.cells for p in r.points})
    return (
        f"Measured on {' or '.join(map(whole, asked)) or 'no'} validation questions. Lines are means over a row's "
        "cells; bands reach from the lowest cell to the highest. Iteration 0 is the policy that evolving starts from."
    )
