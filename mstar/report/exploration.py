"""Exploration: what sampling still finds at each temperature and iteration, and the temperature chosen from it."""

from collections.abc import Callable, Sequence

from mstar.report.charts import Axis, Chart, Point, Series
from mstar.report.figures import Section, absent, figure, iteration_axis, scrolled
from mstar.report.gains import common_k
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import decimal
from mstar.report.views import Evaluation, Iteration, RunView, Sampled

Measure = Callable[[Sampled, Evaluation], float | None]


def saturation_section(runs: Sequence[RunView]) -> Section:
    """Pass@K - Greedy and Reward-Pass@2 over temperature and iteration (the paper's section 4.1)."""
    k = common_k(runs)
    body: list[Child] = [
        el(
            "p",
            el("b", f"Pass@{k or 'K'} − Greedy"),
            " is the exploration that is left: where it is near zero, sampling finds nothing that greedy decoding does "
            "not. ",
            el("b", "Reward-Pass@2"),
            " is the share of questions with a right response among the two that the PRM ranks highest: exploration "
            "and exploitation in one number. Outlined, with a dot: the temperature chosen from that row.",
        )
    ]
    body += [_maps(run, k) for run in runs]
    return Section(
        id="saturation", title="Exploration and saturation", short="Saturation", body=join(body)
    )


def _maps(run: RunView, k: int | None) -> Html:
    evaluated = [i for i in run.iterations if i.evaluation and i.evaluation.sampled]
    if not evaluated:
        return absent(
            f"{run.name}: nothing was sampled on validation yet; the run is {run.progress}."
        )

    def left(point: Sampled, found: Evaluation) -> float | None:
        if k is None or k not in point.pass_at or found.greedy is None:
            return point.pass_minus_greedy
        return point.pass_at[k] - found.greedy.value

    maps = [_heatmap(run, evaluated, f"Pass@{k} − Greedy", "points", left, {})]
    known = any(i.evaluation and p.reward_pass_at_2 is not None for i in evaluated for p in _at(i))
    if known:
        maps.append(_heatmap(run, evaluated, "Reward-Pass@2", "%", _reward, chosen(run)))
    else:
        maps.append(absent("Reward-Pass@2 is not known here: this run asks no PRM."))
    return el("div", el("h3", run.name), el("div", maps, class_="pair"))


def chosen(run: RunView) -> dict[int, float]:
    """For each iteration whose evaluation decided a temperature: which."""
    exploration = run.spec.evolve.exploration
    if exploration is None:
        return {}
    used = {i.index: i.temperature for i in run.iterations if i.temperature is not None}
    return {
        i.index: used[i.index + 1]
        for i in run.iterations
        if i.evaluation and i.index % exploration.every == 0 and i.index + 1 in used
    }


def _reward(point: Sampled, _: Evaluation) -> float | None:
    return point.reward_pass_at_2


def _at(iteration: Iteration) -> tuple[Sampled, ...]:
    return iteration.evaluation.sampled if iteration.evaluation else ()


def _heatmap(
    run: RunView,
    evaluated: Sequence[Iteration],
    name: str,
    unit: str,
    measure: Measure,
    marked: dict[int, float],
) -> Html:
    """A table whose cells are coloured by their value: the same for eyes, for print and for screen readers."""
    temperatures = sorted({point.temperature for i in evaluated for point in _at(i)})
    values = {
        (i.index, point.temperature): value
        for i in evaluated
        for point in _at(i)
        if i.evaluation and (value := measure(point, i.evaluation)) is not None
    }
    low, high = min(values.values(), default=0.0), max(values.values(), default=1.0)
    rows = [
        el(
            "tr",
            el("th", str(i.index), scope="row"),
            (
                _heat(values.get((i.index, t)), low, high, picked=marked.get(i.index) == t)
                for t in temperatures
            ),
        )
        for i in evaluated
    ]
    head = el(
        "tr",
        el("th", "iteration", scope="col"),
        (el("th", f"{t:g}", scope="col") for t in temperatures),
    )
    span = el(
        "tr",
        el("td"),
        el("th", "temperature", colspan=len(temperatures), scope="colgroup"),
        class_="span",
    )
    caption = el("caption", el("b", name), f" ({unit})")
    whole = el("table", caption, el("thead", span, head), el("tbody", rows), class_="heat")
    return scrolled(whole, f"{name} of {run.name}")


def _heat(value: float | None, low: float, high: float, *, picked: bool) -> Html:
    if value is None:
        return el("td", el("span", "not evaluated", class_="hidden"), class_="none")
    place = (value - low) / (high - low) if high > low else 0.5
    return el(
        "td",
        decimal(value * 100, 0),
        el("span", " ●", el("span", " chosen", class_="hidden"), class_="pick") if picked else None,
        class_=f"cell{' deep' if place > 0.55 else ''}{' chosen' if picked else ''}",
        style=f"--v:{place * 100:.0f}%",
    )


def temperature_section(runs: Sequence[RunView]) -> Section:
    """The temperature that each iteration's responses were sampled at."""
    series = [
        Series(
            name=run.name,
            points=tuple(
                Point(
                    x=i.index,
                    y=i.temperature,
                    note=f"{run.name}, iteration {i.index}: temperature {i.temperature:g}",
                )
                for i in run.iterations
                if i.temperature is not None
            ),
            style=style,
            stepped=True,
        )
        for style, run in enumerate(runs)
    ]
    body: list[Child] = [el("p", _rule(run)) for run in runs]
    drawn = tuple(line for line in series if line.points)
    if drawn:
        last = max(int(point.x) for line in drawn for point in line.points)
        chart = Chart(
            label="Sampling temperature by iteration",
            series=drawn,
            x=iteration_axis(last, 1),
            y=_temperature_axis(runs, drawn),
        )
        body.append(
            figure(chart, "The temperature each iteration sampled at.", value=lambda t: f"{t:g}")
        )
    else:
        progress = "; ".join(f"{run.name} is {run.progress}" for run in runs)
        body.append(absent(f"No iteration has sampled yet: {progress}."))
    return Section(id="temperature", title="Temperature", short="Temperature", body=join(body))


def _rule(run: RunView) -> str:
    evolve = run.spec.evolve
    if evolve.method == "sft":
        return f"{run.name}: SFT samples nothing."
    if evolve.exploration is None:
        return f"{run.name}: fixed at {evolve.rollout.temperature:g}."
    grid = evolve.exploration.temperatures
    step = "" if len(grid) == 1 else f" in steps of {evolve.exploration.step:g}"
    every = evolve.exploration.every
    when = "every iteration" if every == 1 else f"every {every} iterations"
    by_reward = evolve.exploration.tune_on == "reward_pass_at_2"
    measure = "Reward-Pass@2" if by_reward else f"Pass@{max(run.spec.evaluation.pass_at)}"
    return (
        f"{run.name}: {when} the temperature from {grid[0]:g} to {grid[-1]:g}{step} "
        f"that maximises {measure} on validation."
    )


def _temperature_axis(runs: Sequence[RunView], series: Sequence[Series]) -> Axis:
    values = {point.y for line in series for point in line.points}
    for run in runs:
        if run.spec.evolve.exploration:
            values |= set(run.spec.evolve.exploration.temperatures)
    low, high = min(values), max(values)
    every = max(1, -(-len(values) // 8))
    ticks = tuple((value, f"{value:g}") for value in sorted(values)[::every])
    return Axis(label="temperature", low=low - 0.1, high=high + 0.1, ticks=ticks)
