"""The browser of responses: the data that the page's script shows, and the controls above it."""

from collections.abc import Sequence
from typing import Any

from mstar.report.figures import Section, absent
from mstar.report.markup import Child, Html, el, join, json_script
from mstar.report.responses import Album, Look, Shown
from mstar.report.views import RunView


def browser_section(runs: Sequence[RunView], album: Album) -> Section:
    """Images, questions and responses with their steps coloured by the PRM, to filter and search."""
    body: list[Child] = []
    if album.looks:
        body += [
            el(
                "p",
                "Some questions of each iteration, drawn by their ids, with every response sampled for them; equal "
                "responses are shown once with their number. A step's colour and bar are its PRM score: blue is high, "
                "orange is low. Where nothing is selected or scored, the page says why.",
            ),
            _controls(),
            el("p", id="count", class_="note", role="status", aria_live="polite"),
            el("div", id="cards"),
            el(
                "noscript",
                absent("The responses are shown by a script; allow scripts to see them."),
            ),
            json_script("album", album_data(runs, album)),
        ]
    missing = {run.name for run in runs} - {look.run for look in album.looks}
    for run in runs:
        if run.name not in missing:
            continue
        sft = run.spec.evolve.method == "sft"
        why = (
            "SFT samples no responses"
            if sft
            else f"none are sampled yet; the run is {run.progress}"
        )
        body.append(absent(f"{run.name}: {why}."))
    return Section(id="responses", title="Responses", short="Responses", body=join(body))


def _controls() -> Html:
    def choice(name: str, label: str, options: Sequence[tuple[str, str]] = ()) -> Html:
        items = (el("option", text, value=value) for value, text in options)
        return el("label", el("span", label), el("select", items, id=name))

    return el(
        "form",
        choice("run", "Run"),
        choice("look", "Iteration"),
        choice(
            "right", "Answer", [("", "right and wrong"), ("1", "right only"), ("0", "wrong only")]
        ),
        choice(
            "selected", "Training", [("", "all"), ("1", "selected only"), ("0", "not selected")]
        ),
        el(
            "label",
            el("span", "Search"),
            el("input", id="search", type="search", placeholder="question, step or answer"),
            class_="grow",
        ),
        id="controls",
        aria_label="Filter responses",
    )


def album_data(runs: Sequence[RunView], album: Album) -> dict[str, Any]:
    """The album as the script reads it."""
    asks = {run.name: run.spec.evolve.select.rule in {"threshold", "top_k"} for run in runs}
    return {
        "queries": {
            identity: {
                "id": query.id,
                "question": query.question,
                "options": list(query.options),
                "answer": query.answer,
                "image": picture.source,
                "width": picture.width,
                "height": picture.height,
            }
            for identity, (query, picture) in sorted(album.queries.items())
        },
        "looks": [_look(look, scores=asks.get(look.run, False)) for look in album.looks],
    }


def _look(look: Look, *, scores: bool) -> dict[str, Any]:
    training = look.source == "training"
    name = f"{look.iteration}: {'training' if training else 'validation'}"
    sampled = "" if look.temperature is None else f" at temperature {look.temperature:g}"
    if training:
        said = f"{len(look.groups)} of the {look.queries} questions that iteration {look.iteration} sampled{sampled}. "
        said += (
            "The PRM is asked about right responses only: a wrong one's reward is 0 whatever it says."
            if scores
            else "No PRM ranks responses in this run, so steps have no scores."
        )
    else:
        said = (
            f"{len(look.groups)} of the {look.queries} validation questions after iteration {look.iteration}: "
            f"the greedy response, and those sampled{sampled}. Nothing is selected from validation."
        )
    groups = [
        {"id": query, "responses": [_shown(s) for s in shown]} for query, shown in look.groups
    ]
    return {"run": look.run, "name": name, "said": said, "groups": groups}


def _shown(shown: Shown) -> dict[str, Any]:
    """Only what is not the usual is written, which keeps the page small."""
    found: dict[str, Any] = {"steps": list(shown.steps), "answer": shown.answer}
    if shown.scores:
        found["scores"] = [round(score, 3) for score in shown.scores]
    if shown.count > 1:
        found["count"] = shown.count
    if shown.selected:
        found["selected"] = shown.selected
    flags = {"correct": shown.correct, "cut": shown.cut, "greedy": shown.greedy}
    return found | {name: 1 for name, value in flags.items() if value}
