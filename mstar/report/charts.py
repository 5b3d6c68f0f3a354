"""Charts as SVG: data in, markup out. Colours are classes, so the style sheet decides them for screen and print."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mstar.report.markup import Child, Html, el, join, number
from mstar.report.scale import Scale

STYLES = 6
"""How many series can be told apart: by colour, by dash and by marker."""

SMALL_COUNT = 40
"""Up to so many points a line shows each of them."""

RIGHT, TOP, BOTTOM = 14, 14, 44
CHARACTER = 6.6
"""Width of a character of an axis label, about."""

LINE_HEIGHT = 13
"""Nearer ticks would write over one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measurement, its interval where it has one, and what to say about it."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line. ``style`` is its place among the styles; ``stepped`` holds a value until the next.

    Without a name it is background, in no legend.
    """

    name: str
    points: tuple[Point, ...]
    style: int
    stepped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis: what it shows, from where to where, and its ticks with their texts."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A line chart before it has a size. ``marks`` are places on the x axis worth a line, each with its text."""

    label: str
    series: tuple[Series, ...]
    x: Axis
    y: Axis
    marks: tuple[tuple[float, str], ...] = ()

    @property
    def named(self) -> tuple[Series, ...]:
        """The series for the legend and the table: those in the background have no name."""
        return tuple(series for series in self.series if series.name)


def line_chart(chart: Chart, width: float, height: float) -> Html:
    """The chart at one size; drawn again at another size rather than scaled, so that its text stays readable."""
    left = 14 + CHARACTER * max((len(text) for _, text in chart.y.ticks), default=2)
    x = Scale(low=chart.x.low, high=chart.x.high, start=left, end=width - RIGHT, log=chart.x.log)
    y = Scale(
        low=chart.y.low, high=chart.y.high, start=height - BOTTOM, end=TOP + 14, log=chart.y.log
    )
    return el(
        "svg",
        el("title", chart.label),
        _axes(chart, x, y, height),
        (_band(series, x, y) for series in chart.series),
        (_line(series, x, y) for series in chart.series),
        class_="chart",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=chart.label,
    )


def swatch(style: int) -> Html:
    """A sample of a series' line and marker, for legends."""
    shape = MARKERS[style % len(MARKERS)]
    return el(
        "svg",
        el("path", d="M1 7H27", class_=f"line s{style % STYLES}"),
        shape(14, 7, f"dot s{style % STYLES}"),
        class_="swatch",
        viewBox="0 0 28 14",
        width=28,
        height=14,
        aria_hidden="true",
    )


def range_bar(value: float, low: float, high: float, style: int) -> Html:
    """A share with its interval on a line from 0 to 1."""
    x = Scale(low=0, high=1, start=5, end=295)
    return el(
        "svg",
        el("path", d="M5 10H295", class_="rail"),
        (el("path", d=f"M{number(x(t))} 7v6", class_="rail") for t in (0, 0.25, 0.5, 0.75, 1)),
        el("path", d=f"M{number(x(low))} 10H{number(x(high))}", class_=f"range s{style % STYLES}"),
        MARKERS[style % len(MARKERS)](x(value), 10, f"dot s{style % STYLES}"),
        class_="rangebar",
        viewBox="0 0 300 20",
        width=300,
        height=20,
        aria_hidden="true",
    )


def _axes(chart: Chart, x: Scale, y: Scale, height: float) -> Html:
    parts: list[Child] = []
    above = float("inf")
    for value, text in chart.y.ticks:
        if above - y(value) < LINE_HEIGHT:
            continue
        above = y(value)
        at = number(above)
        parts += [
            el("path", d=f"M{number(x.start)} {at}H{number(x.end)}", class_="grid"),
            el("text", text, x=x.start - 6, y=y(value) + 4, class_="tick end"),
        ]
    for value, text in _thinned(chart.x.ticks, x):
        parts.append(el("text", text, x=x(value), y=height - BOTTOM + 18, class_="tick middle"))
    for value, text in chart.marks:
        at = number(x(value))
        parts.append(
            el(
                "path",
                el("title", text),
                d=f"M{at} {number(y.end)}V{number(y.start)}",
                class_="mark",
            )
        )
    bottom = number(y.start)
    return join(
        parts,
        el("path", d=f"M{number(x.start)} {bottom}H{number(x.end)}", class_="axis"),
        el("text", chart.x.label, x=x.end, y=height - 6, class_="name end"),
        el("text", chart.y.label, x=2, y=12, class_="name"),
    )


def _thinned(ticks: Sequence[tuple[float, str]], x: Scale) -> list[tuple[float, str]]:
    """The ticks whose texts do not run into one another."""
    kept: list[tuple[float, str]] = []
    free = float("-inf")
    for value, text in ticks:
        half = CHARACTER * len(text) / 2 + 3
        if x(value) - half >= free:
            kept.append((value, text))
            free = x(value) + half
    return kept


def _band(series: Series, x: Scale, y: Scale) -> Html | None:
    bounds = [(p, p.low, p.high) for p in series.points if p.low is not None and p.high is not None]
    style = f"s{series.style % STYLES}"
    if len(bounds) == 1:
        point, low, high = bounds[0]
        path = f"M{number(x(point.x))} {number(y(low))}V{number(y(high))}"
        return el("path", d=path, class_=f"whisker {style}")
    if not bounds:
        return None
    upper = [f"{number(x(p.x))} {number(y(high))}" for p, _, high in bounds]
    lower = [f"{number(x(p.x))} {number(y(low))}" for p, low, _ in reversed(bounds)]
    return el("path", d="M" + "L".join(upper + lower) + "Z", class_=f"band {style}")


def _line(series: Series, x: Scale, y: Scale) -> Html:
    style = f"s{series.style % STYLES}"
    places = [(x(point.x), y(point.y)) for point in series.points]
    path = ""
    for index, (at, up) in enumerate(places):
        if index and series.stepped:
            path += f"H{number(at)}V{number(up)}"
        else:
            path += f"{'L' if index else 'M'}{number(at)} {number(up)}"
    dots: list[Html] = []
    if series.name and len(places) <= SMALL_COUNT:
        marker = MARKERS[series.style % len(MARKERS)]
        dots = [
            el(
                "g",
                el("title", point.note or f"{series.name}: {number(point.y)}"),
                el("circle", cx=at, cy=up, r=11, class_="hit"),
                marker(at, up, f"dot {style}"),
            )
            for point, (at, up) in zip(series.points, places, strict=True)
        ]
    faint = "" if series.name else " faint"
    return join(el("path", d=path, class_=f"line {style}{faint}") if path else None, dots)


def _circle(x: float, y: float, style: str) -> Html:
    return el("circle", cx=x, cy=y, r=4, class_=style)


def _square(x: float, y: float, style: str) -> Html:
    return el("rect", x=x - 3.6, y=y - 3.6, width=7.2, height=7.2, class_=style)


def _triangle(x: float, y: float, style: str) -> Html:
    return el("path", d=f"M{number(x)} {number(y - 4.8)}l4.6 8.2h-9.2z", class_=style)


def _diamond(x: float, y: float, style: str) -> Html:
    return el("path", d=f"M{number(x)} {number(y - 5)}l5 5l-5 5l-5 -5z", class_=style)


MARKERS: tuple[Callable[[float, float, str], Html], ...] = (_circle, _square, _triangle, _diamond)
