"""What the policy learned from: selection by iteration, and the loss."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import fsum

from mstar.report.charts import SMALL_COUNT, Axis, Chart, Point, Series
from mstar.report.figures import Section, absent, figure, iteration_axis, share_axis, table
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import decimal, log_ticks, nice_ticks, percent, whole
from mstar.report.views import Iteration, PrmView, RunView, Selection

WINDOW = 9
"""Points that a smoothed loss is the mean of."""

LINE_POINTS = 240
"""A loss curve has at most so many points, each the mean of its share of the steps."""


def selection_section(runs: Sequence[RunView]) -> Section:
    """What each iteration's reward kept, against the other right responses (the paper's figure 2)."""
    body: list[Child] = []
    if any(i.selection for run in runs for i in run.iterations):
        solved = _shares(runs, "Questions solved", lambda s: s.solved / s.queries)
        right = _shares(runs, "Right responses", lambda s: s.correct / s.responses)
        body.append(el("div", solved, right, class_="pair"))
    for run in runs:
        scored = [i for i in run.iterations if i.selection]
        if scored:
            body.append(_selected(run, scored))
        elif run.spec.evolve.method == "sft":
            body.append(absent(f"{run.name}: SFT trains on the true answers and selects nothing."))
        else:
            body.append(absent(f"{run.name}: nothing is scored yet; the run is {run.progress}."))
    note = (
        "Reward is the lowest step score of a response (PRM). A right response that was not selected is one of the "
        "“others”; where all right responses are kept there are none. Means are over responses: easy questions, which "
        "have many right ones, weigh more among the others."
    )
    return Section(
        id="selection",
        title="What was selected for training",
        short="Selection",
        body=join(body, el("p", note, class_="note")),
    )


def _shares(runs: Sequence[RunView], name: str, share: Callable[[Selection], float]) -> Html:
    """A share of the training rollouts by iteration, a line for each run."""
    lines = [
        Series(
            name=run.name,
            points=tuple(
                Point(
                    x=i.index,
                    y=share(i.selection),
                    note=f"{run.name}, iteration {i.index}: {percent(share(i.selection))}",
                )
                for i in run.iterations
                if i.selection and i.selection.responses
            ),
            style=style,
        )
        for style, run in enumerate(runs)
    ]
    drawn = tuple(line for line in lines if line.points)
    points = [point for line in drawn for point in line.points]
    chart = Chart(
        label=f"{name} of the training rollouts by iteration",
        series=drawn,
        x=iteration_axis(max((int(p.x) for p in points), default=1), 1),
        y=share_axis(name.lower(), [p.y for p in points]),
    )
    return figure(chart, f"{name}, as a share of what the iteration sampled for training.")


def _selected(run: RunView, scored: Sequence[Iteration]) -> Html:
    rows: list[list[Child]] = []
    for iteration in scored:
        s = iteration.selection
        assert s is not None, "only iterations with a selection come here"
        rows.append(
            [
                str(iteration.index),
                whole(s.queries),
                percent(s.solved / s.queries if s.queries else None),
                whole(s.responses),
                percent(s.correct / s.responses if s.responses else None),
                whole(s.selected),
                whole(s.selected_queries),
                decimal(s.steps_selected),
                decimal(s.steps_other),
                decimal(s.reward_selected),
                decimal(s.reward_other),
            ]
        )
    head = [
        "Iteration",
        "Queries",
        "Solved",
        "Responses",
        "Right",
        "Selected",
        "Queries they answer",
        "Steps, selected",
        "Steps, other right",
        "Reward, selected",
        "Reward, other right",
    ]
    return table(run.name, head, rows, label=f"Selection of {run.name}")


def loss_section(runs: Sequence[RunView]) -> Section:
    """The policy's loss over all iterations as one curve, and the PRM's."""
    series = [
        Series(name=run.name, points=_joined(run), style=style) for style, run in enumerate(runs)
    ]
    drawn = tuple(shown for line in series if line.points for shown in _with_mean(line))
    body: list[Child] = []
    if drawn:
        values = [point.y for line in drawn for point in line.points]
        high = max(values)
        ticks = nice_ticks(0, high, 4)
        last = max(i.index for run in runs for i in run.iterations if i.losses)
        chart = Chart(
            label="Training loss of the policy",
            series=drawn,
            x=iteration_axis(last),
            y=Axis(label="loss", low=0, high=high, ticks=tuple((t, f"{t:g}") for t in ticks)),
            marks=tuple((index, f"iteration {index} ends") for index in range(1, last + 1)),
        )
        caption = (
            "Loss of the policy, iterations joined: each lies between the number before it and its own. "
            f"Bold, where there are many steps: the mean of {WINDOW} neighbours."
        )
        body.append(figure(chart, caption, value=None))
    body += [
        absent(f"{line.name}: no iteration is trained yet; the run is {run.progress}.")
        for line, run in zip(series, runs, strict=True)
        if not line.points
    ]
    prms = {run.prm.identity: run.prm for run in runs if run.prm and run.prm.losses}
    body += [_prm_loss(prm) for prm in prms.values()]
    return Section(
        id="loss", title="Training loss", short="Loss", body=el("div", body, class_="pair")
    )


def _joined(run: RunView) -> tuple[Point, ...]:
    trained = [i for i in run.iterations if i.losses]
    room = max(1, LINE_POINTS // max(1, len(trained)))
    return tuple(
        Point(
            x=iteration.index - 1 + place,
            y=loss,
            note=f"{run.name}, iteration {iteration.index}: loss {loss:.4g}",
        )
        for iteration in trained
        for place, loss in thinned(iteration.losses, room)
    )


def _with_mean(line: Series) -> tuple[Series, ...]:
    """A long line behind its running mean; a short one as it is."""
    if len(line.points) <= SMALL_COUNT:
        return (line,)
    return replace(line, name=""), replace(line, points=smoothed(line.points))


def smoothed(points: Sequence[Point]) -> tuple[Point, ...]:
    """Each point's y as the mean of it and its neighbours, ``WINDOW`` in all where there are so many."""
    half = WINDOW // 2
    found = []
    for index, point in enumerate(points):
        near = points[max(0, index - half) : index + half + 1]
        found.append(replace(point, y=fsum(p.y for p in near) / len(near)))
    return tuple(found)


def thinned(losses: Sequence[float], room: int) -> list[tuple[float, float]]:
    """At most ``room`` means of equal shares of the losses, each with its place from 0 to 1."""
    count = min(room, len(losses))
    found = []
    for index in range(count):
        start, end = len(losses) * index // count, len(losses) * (index + 1) // count
        found.append(((start + end) / 2 / len(losses), fsum(losses[start:end]) / (end - start)))
    return found


def _prm_loss(prm: PrmView) -> Html:
    points = tuple(
        Point(x=place * len(prm.losses), y=max(loss, 1e-9))
        for place, loss in thinned(prm.losses, LINE_POINTS)
    )
    low, high = min(p.y for p in points), max(p.y for p in points)
    chart = Chart(
        label="Training loss of the PRM",
        series=(Series(name="PRM", points=points, style=4),),
        x=Axis(
            label="optimizer step",
            low=0,
            high=len(prm.losses),
            ticks=tuple((t, whole(t)) for t in nice_ticks(0, len(prm.losses), 5)),
        ),
        y=Axis(
            label="squared error, logarithmic",
            low=low * 0.9,
            high=high * 1.1,
            ticks=tuple((t, f"{t:g}") for t in log_ticks(low * 0.9, high * 1.1)),
            log=True,
        ),
    )
    return figure(chart, "Loss of the PRM.", value=None)
