"""The parts of the analysis' page: verifier, length, relevance, threshold, and what is missing."""

from collections.abc import Iterator, Sequence

from mstar.analysis.preferring import TOP
from mstar.analysis.records import Analysis, Contrast, Estimate, Source, Survival
from mstar.analysis.surviving import AT_LEAST
from mstar.analysis.words import MEASURES, SHARES, in_numbers, in_points, level, of_measure
from mstar.report.charts import Axis, Chart, Point, Series
from mstar.report.figures import Section, absent, figure, iteration_axis, share_axis, table
from mstar.report.markup import Child, Html, el, join
from mstar.report.scale import decimal, nice_ticks, padded, percent, points, whole

CURVES = {
    "best_of_n": "Best-of-N",
    "weighted_vote": "weighted voting",
    "majority_vote": "majority voting (no PRM)",
    "pass_at_n": "Pass@N (a perfect verifier)",
}
DIFFERENCES = {
    "best_of_n": "Best-of-N",
    "weighted_vote": "Weighted voting",
    "majority_vote": "Majority voting",
}
BASES = {"majority_vote": "majority voting", "greedy": "the greedy response"}
STYLES = {"best_of_n": 0, "weighted_vote": 1, "majority_vote": 2, "pass_at_n": 5}


def verifier_section(found: Analysis) -> Section:
    """Accuracy against N, and the paired differences that say which curve is above which."""
    verification = found.verification
    sizes = verification.sizes
    series = [
        _series(CURVES[name], style, list(zip(sizes, verification.curves[name], strict=True)))
        for name, style in STYLES.items()
    ]
    if greedy := verification.greedy:
        series.append(_series("greedy, one response", 3, [(size, greedy) for size in sizes]))
    values = [
        bound for curve in verification.curves.values() for e in curve for bound in (e.low, e.high)
    ]
    chart = Chart(
        label="Accuracy of the answer chosen from N samples",
        series=tuple(series),
        x=Axis(
            label="N samples a question",
            low=sizes[0] * 0.93,
            high=sizes[-1] * 1.08,
            ticks=tuple((size, str(size)) for size in sizes),
            log=True,
        ),
        y=share_axis("accuracy", values),
    )
    caption = (
        f"Accuracy on {whole(found.queries)} questions of {found.split}, policy {found.policy}, temperature "
        f"{found.temperature:g}. Bands: 95 % over questions."
    )
    against = [
        _differences(found, base, [key for key in verification.differences if key.endswith(base)])
        for base in ("majority_vote", "greedy")
    ]
    note = el(
        "p",
        "Differences are paired by question, in percentage points, with 95 % intervals; one that leaves out 0 tells "
        "the two apart.",
        class_="note",
    )
    body = el("div", figure(chart, caption), el("div", note, against), class_="pair")
    return Section(id="verifier", title="Is it a verifier?", short="Verifier", body=body)


def _differences(found: Analysis, base: str, keys: Sequence[str]) -> Html | None:
    if not keys:
        return None
    columns = [found.verification.differences[key] for key in keys]
    rows: list[list[Child]] = [
        [str(size), *(in_points(column[place]) for column in columns)]
        for place, size in enumerate(found.verification.sizes)
    ]
    name = BASES[base]
    head = ["N", *(DIFFERENCES[key.removesuffix(f" - {base}")] for key in keys)]
    return table(f"Above {name}", head, rows, label=f"Differences from {name}")


def length_section(found: Analysis) -> Section:
    """Steps and tokens of the Top-k against the others."""
    shown = ("steps", "tokens")
    body: list[Child] = [
        _contrasts(found, name, f"{MEASURES[name].capitalize()} of a response") for name in shown
    ]
    chart = _by_iteration(found, shown[:1], "steps, Top − others")
    intro = el(
        "p",
        f"The right responses that the PRM ranks highest (Top-{TOP}) against the other right responses of the same "
        f"question: {found.samples} samples a question of {found.split}, and what each iteration selected from on its "
        "own training questions. The line with the answer counts as a step.",
    )
    return Section(
        id="length",
        title="Are its favourites shorter?",
        short="Length",
        body=join(intro, el("div", body, chart, class_="pair")),
    )


def relevance_section(found: Analysis) -> Section:
    """What the questions' generator knows of the steps, and what a judge says."""
    body: list[Child] = []
    names = [name for name in MEASURES if any(name in s.contrasts for s in found.sources)]
    if generated := [name for name in names if name in SHARES]:
        body.append(
            el(
                "p",
                "Known from the generator of the questions. ",
                el("b", "Relevant steps"),
                ": the share of a response's steps that a valid rationale of its question has: right cell, right "
                "operation, right value. ",
                el("b", "Operations shown"),
                ": the share of the question's operations that such a step does, so a lucky answer after half of the "
                "work shows half. ",
                el("b", "Sound"),
                ": both are whole.",
            )
        )
        tables = [_contrasts(found, name, MEASURES[name].capitalize()) for name in generated]
        chart = _by_iteration(found, generated, "points, Top − others")
        body.append(el("div", tables, chart, class_="pair"))
    if judgement := found.judgement:
        body.append(el("h3", f"Judged by {judgement.model}"))
        said = (
            f"{whole(judgement.judged)} of {whole(judgement.responses)} responses have a score from 1 to 10, "
            f"{whole(judgement.cached)} of them from an earlier analysis."
        )
        body.append(el("p", said))
        if judgement.contrast:
            rows = [_row(_short(found.sampled), "judge", judgement.contrast)]
            body.append(
                table(
                    "Relevance, 1 to 10, of drawn pairs.", _head(), rows, label="Judged relevance"
                )
            )
    body += [absent(f"{m.what}: {m.why}.") for m in found.missing if "relevance" in m.what]
    return Section(
        id="relevance", title="Are its favourites to the point?", short="Relevance", body=join(body)
    )


def threshold_section(found: Analysis) -> Section:
    """Of how many queries a threshold keeps all right responses, or none, beside Top-k."""
    shown = [source for source in found.sources[:2] if source.survivals]
    intro = el(
        "p",
        f"Questions with at least {AT_LEAST} right responses. A threshold on the reward keeps all of them, none, or "
        "some; only where it keeps some does it choose among the responses to one question.",
    )
    body = [_survival(source) for source in shown]
    why = "No question has right responses enough."
    return Section(
        id="threshold",
        title="What does a threshold keep?",
        short="Threshold",
        body=join(intro, el("div", body, class_="pair") if body else absent(why)),
    )


def missing_section(found: Analysis) -> Section | None:
    """What is not there, with the reason; None when all is there."""
    if not found.missing:
        return None
    items = (el("li", el("b", each.what), ": ", each.why, ".") for each in found.missing)
    return Section(id="missing", title="What is missing", short="Missing", body=el("ul", items))


def _survival(source: Source) -> Html:
    thresholds = [(s.alpha, s) for s in source.survivals if s.alpha is not None]
    names = (("all", "all kept", 0), ("some", "some kept", 2), ("none", "none kept", 1))
    series = tuple(
        _series(title, style, [(alpha, getattr(s, name)) for alpha, s in thresholds])
        for name, title, style in names
    )
    marks: tuple[tuple[float, str], ...] = ()
    if source.alpha is not None:
        marks = ((source.alpha, f"{source.alpha:g} tells right from wrong best"),)
    chart = Chart(
        label=f"Right responses that survive a threshold: {source.label}",
        series=series,
        x=Axis(
            label="alpha, kept above",
            low=-0.03,
            high=0.93,
            ticks=tuple((alpha, f"{alpha:g}") for alpha, _ in thresholds),
        ),
        y=share_axis("share of questions", [0.0, 1.0]),
        marks=marks,
    )
    best = ""
    if source.alpha is not None:
        accuracy = source.balanced_accuracy[f"{source.alpha:g}"]
        best = (
            f" Dotted: {source.alpha:g}, which tells right from wrong best "
            f"(balanced accuracy {percent(accuracy)})."
        )
    caption = (
        f"{source.label[:1].upper()}{source.label[1:]}, temperature {source.temperature:g}: "
        f"{whole(source.survivable)} questions.{best}"
    )
    rows = [_kept(survival) for survival in source.survivals]
    numbers = table(
        "The same for each rule, and Top-k beside it.",
        ["Rule", "All", "Some", "None", "Kept a question"],
        rows,
        label=f"Rules: {source.label}",
    )
    return el("div", figure(chart, caption, value=None), numbers)


def _kept(survival: Survival) -> list[Child]:
    name = f"Top-{survival.k}" if survival.k else f"above {survival.alpha:g}"
    shares = (survival.all, survival.some, survival.none)
    return [name, *(percent(each.value) for each in shares), decimal(survival.kept, 1)]


def _contrasts(found: Analysis, name: str, title: str) -> Html:
    rows = [
        _row(_short(source), name, source.contrasts[name])
        for source in found.sources
        if name in source.contrasts
    ]
    if not rows:
        return absent(f"{title}: no question has more than {TOP} right responses.")
    return table(f"{title}, means over questions.", _head(), rows, label=title)


def _head() -> list[Child]:
    return ["Responses", f"Top-{TOP}", "Others", "Difference (95 %)", "Questions"]


def _row(label: str, name: str, contrast: Contrast) -> list[Child]:
    if name == "judge":
        values = [decimal(contrast.top.value), decimal(contrast.other.value)]
        difference = in_numbers(contrast.difference)
    else:
        values = [level(name, contrast.top.value), level(name, contrast.other.value)]
        difference = of_measure(name, contrast.difference)
    return [label, *values, difference, whole(contrast.difference.n)]


def _by_iteration(found: Analysis, names: Sequence[str], label: str) -> Html | None:
    """The difference over the run's iterations; nothing for fewer than two."""
    rollouts = list(_numbered(found))
    if len(rollouts) < 2:
        return None
    series = tuple(
        _series(
            MEASURES[name],
            style,
            [(i, s.contrasts[name].difference) for i, s in rollouts if name in s.contrasts],
        )
        for style, name in enumerate(names)
    )
    values = [value for line in series for p in line.points for value in (p.low or 0, p.high or 0)]
    low, high = padded([0.0, *values])
    share = names[0] in SHARES
    ticks = nice_ticks(low, high, 5)
    chart = Chart(
        label=f"{label}, by iteration",
        series=series,
        x=iteration_axis(rollouts[-1][0], first=rollouts[0][0]),
        y=Axis(
            label=label,
            low=low,
            high=high,
            ticks=tuple((t, points(t, 0) if share else decimal(t)) for t in ticks),
        ),
    )
    caption = "In the run's own rollouts, by iteration. Below 0: the favourites have less."
    return figure(chart, caption, value=points if share else decimal)


def _short(source: Source) -> str:
    """A source as a table's first column has it."""
    number = source.name.removeprefix("iter-")
    return f"iteration {int(number)}" if number.isdecimal() else source.name


def _numbered(found: Analysis) -> Iterator[tuple[int, Source]]:
    for source in found.sources:
        if source.name.startswith("iter-") and source.contrasts:
            yield int(source.name.removeprefix("iter-")), source


def _series(name: str, style: int, found: Sequence[tuple[float, Estimate]]) -> Series:
    return Series(
        name=name,
        style=style,
        points=tuple(Point(x=x, y=each.value, low=each.low, high=each.high) for x, each in found),
    )
