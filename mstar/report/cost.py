"""Time and tokens a step."""

from collections.abc import Sequence

from mstar.report.collect import elapsed_seconds, work_seconds
from mstar.report.figures import Section, absent, table
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import decimal, duration, percent, whole
from mstar.report.views import RunView, StepView

PHASES = {"load": "load", "sample": "sample", "score": "PRM", "train": "train"}
"""The phases with a colour of their own; others are drawn together."""

GIB = 1 << 30

OTHER, OUTSIDE = "other", "outside"
NAMES = PHASES | {OTHER: "other phases", OUTSIDE: "start-up, storage, controller"}


def cost_section(runs: Sequence[RunView]) -> Section:
    """A bar for each step, in its phases; steps that another run had made are marked."""
    longest = max((step.seconds for run in runs for step in run.steps), default=0.0)
    body: list[Child] = []
    if longest:
        legend = (el("li", el("span", class_=f"key ph-{key}"), name) for key, name in NAMES.items())
        body += [el("p", _summary(runs)), el("ul", legend, class_="legend")]
    for run in runs:
        if run.steps:
            body.append(_steps(run, longest))
        else:
            body.append(absent(f"{run.name}: no step is finished yet."))
    return Section(id="cost", title="Time and tokens", short="Cost", body=join(body))


def _summary(runs: Sequence[RunView]) -> str:
    made = {step.ref.id: step for run in runs for step in run.steps}
    work = work_seconds(runs)
    outside = sum(step.overhead for step in made.values())
    tokens = sum(step.tokens or 0 for step in made.values())
    return (
        f"{len(made)} steps took {duration(work)} of work in {duration(elapsed_seconds(runs))} (runs may go on side by "
        f"side, and pauses do not count), {percent(outside / work)} of it outside the stages' own phases, and handled "
        f"{whole(tokens)} response tokens."
    )


def _steps(run: RunView, longest: float) -> Html:
    rows: list[list[Child]] = []
    measured = any(step.peak_bytes for step in run.steps)
    for step in run.steps:
        name = el("code", step.name)
        mark = el("span", "adopted", class_="badge", title="made by another run")
        rate = step.tokens / step.seconds if step.tokens and step.seconds else None
        rows.append(
            [
                join(name, " ", mark) if step.adopted else name,
                el("td", _bar(step, longest), class_="drawn"),
                decimal(step.seconds, 1),
                whole(step.tokens),
                whole(rate),
                *([decimal(step.peak_bytes and step.peak_bytes / GIB)] if measured else []),
            ]
        )
    took = sum(step.seconds for step in run.steps if not step.adopted)
    adopted = [step for step in run.steps if step.adopted]
    saved = ""
    if adopted:
        seconds = duration(sum(step.seconds for step in adopted))
        saved = f"; {len(adopted)} steps ({seconds}) were adopted from another run"
    head = [
        "Step",
        "Phases",
        "Seconds",
        "Tokens",
        "Tokens/s",
        *(["Peak memory, GiB"] if measured else []),
    ]
    found = table(
        el("span", f"Steps of {run.name}", class_="hidden"),
        head,
        rows,
        class_="cost",
        label=f"Steps of {run.name}",
    )
    summary = el("summary", el("b", run.name), f": {len(run.steps)} steps, {duration(took)}{saved}")
    return el("details", summary, found, open=True)


def _bar(step: StepView, longest: float) -> Html:
    spent = dict.fromkeys(NAMES, 0.0)
    for phase, seconds in step.timings.items():
        spent[phase if phase in PHASES else OTHER] += seconds
    spent[OUTSIDE] = step.overhead
    parts = (
        el(
            "span",
            class_=f"ph-{key}",
            style=f"width:{seconds / longest * 100:.2f}%",
            title=f"{NAMES[key]}: {seconds:.1f} s",
        )
        for key, seconds in spent.items()
        if seconds / longest > 0.002
    )
    return el("div", parts, class_="bar adopted" if step.adopted else "bar", aria_hidden="true")
