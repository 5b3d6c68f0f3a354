"""The process reward model: its error on held-out steps, and its worth as a verifier against N."""

from collections.abc import Sequence

from mstar.report.charts import Axis, Chart, Point, Series
from mstar.report.figures import Section, absent, figure, share_axis, table
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import decimal, percent, whole
from mstar.report.views import Evaluation, PrmView, RunView

METHODS = {
    "best_of_n": "Best-of-N",
    "weighted_vote": "weighted voting",
    "majority_vote": "majority voting (no PRM)",
}


def prm_section(runs: Sequence[RunView]) -> Section:
    """Every PRM once, with the runs that use it."""
    known: dict[str, tuple[PrmView, list[str]]] = {}
    body: list[Child] = []
    for run in runs:
        if run.prm:
            key = run.prm.identity or run.name
            known.setdefault(key, (run.prm, []))[1].append(run.name)
        else:
            body.append(absent(_why_none(run)))
    shown = [_one(prm, names) for prm, names in known.values()]
    return Section(id="prm", title="Process reward model", short="PRM", body=join(shown, body))


def _why_none(run: RunView) -> str:
    evolve = run.spec.evolve
    if run.spec.prm is None:
        return f"{run.name} has no PRM: its spec says prm: null."
    if not evolve.needs_prm:
        why = "SFT" if evolve.method == "sft" else f"the selection rule “{evolve.select.rule}”"
        return f"{run.name} trains no PRM: {why} without adaptive exploration never asks one."
    return f"{run.name} has no PRM yet; the run is {run.progress}."


def _one(prm: PrmView, names: Sequence[str]) -> Html:
    used = el("p", f"Used by {' and '.join(names)}.", class_="note")
    return el("div", used, el("div", _verification(prm.verification), _error(prm), class_="pair"))


def _error(prm: PrmView) -> Html:
    rows: list[list[Child]] = []
    if prm.examples is not None:
        rows.append(["Responses trained on", whole(prm.examples)])
        rows.append(["Labelled steps, held-out ones included", whole(prm.labelled_steps)])
        rows.append(["Mean label (share of completions that end right)", decimal(prm.mean_label)])
    if prm.held_out:
        held = prm.held_out
        less = 1 - held.mse / held.mse_of_mean if held.mse_of_mean else None
        rows.append(["Held-out steps", whole(held.steps)])
        rows.append(["Squared error on them", decimal(held.mse, 4)])
        rows.append(["… of always guessing their mean", decimal(held.mse_of_mean, 4)])
        rows.append(["… so much of the variance is explained", percent(less)])
        rows.append(["AUC (label at least one half)", decimal(held.auc, 3)])
    if not rows:
        return absent("Its data is not labelled yet.")
    caption = "Monte Carlo labels, and the error on questions that were kept from training."
    found = table(caption, ["", "Value"], rows, class_="facts", label="PRM error")
    missing = None if prm.held_out else absent("Held-out error: not measured (yet).")
    return el("div", found, missing)


def _verification(found: Evaluation | None) -> Html:
    if found is None or not found.verification:
        return absent("As a verifier: the step prm/verify is not finished.")
    sizes = sorted(found.verification)
    series = [
        Series(
            name=name,
            style=style,
            points=tuple(
                Point(
                    x=size,
                    y=found.verification[size][key],
                    note=f"{name}, N = {size}: {percent(found.verification[size][key])}",
                )
                for size in sizes
            ),
        )
        for style, (key, name) in enumerate(METHODS.items(), start=2)
    ]
    ceiling = found.sampled[0].pass_at if found.sampled else {}
    reach = [
        Point(x=k, y=v, note=f"Pass@{k}: {percent(v)}") for k, v in ceiling.items() if k in sizes
    ]
    if reach:
        name = "Pass@N (a perfect verifier)"
        series.append(Series(name=name, points=tuple(reach), style=5))
    chart = Chart(
        label="Accuracy of verified answers against N",
        series=tuple(series),
        x=Axis(
            label="N responses a question",
            low=sizes[0] * 0.93,
            high=sizes[-1] * 1.08,
            ticks=tuple((size, str(size)) for size in sizes),
            log=True,
        ),
        y=share_axis("accuracy", [p.y for line in series for p in line.points]),
    )
    temperature = f" at temperature {found.sampled[0].temperature:g}" if found.sampled else ""
    caption = (
        f"As a verifier: accuracy of the answer chosen from N samples of the warm-up policy{temperature}, "
        f"on {whole(found.queries)} validation questions."
    )
    return figure(chart, caption)
