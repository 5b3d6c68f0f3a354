"""Write the tables of docs/reproduction.md from studies/: ``python tools/reproduction.py`` (``--check`` only compares).

The words between the tables are a person's; every number in a table comes from a file that a study or an analysis
wrote.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mstar.core.comparison import Estimate, mean_estimate
from mstar.report.scale import duration

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reproduction.md"
TEACHING = ROOT / "studies" / "teaching"
MARK = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Body = Mapping[str, Any]


def render(page: str) -> str:
    """The page with its tables as the results have them."""
    study = _read(TEACHING / "study.json")
    analyses = [_read(file) for file in sorted(TEACHING.glob("analysis-*.json"))]
    tables: dict[str, Callable[[], str]] = {
        "rows": lambda: _rows(study),
        "claims": lambda: _claims(study),
        "transfer": lambda: _rows(_read(ROOT / "studies" / "transfer" / "study.json")),
        "verifier": lambda: _verifier(analyses),
        "preference": lambda: _preference(analyses),
        "threshold": lambda: _threshold(analyses),
        "sharing-s2": lambda: _sharing(study, seed=2),
    }
    return MARK.sub(lambda found: f"{found[1]}{tables[found[2]]()}{found[3]}", page)


def _read(file: Path) -> Body:
    body: Body = json.loads(file.read_text(encoding="utf-8"))
    return body


def _rows(study: Body) -> str:
    lines = []
    for name, start in study["starts"].items():
        lines.append((f"({name})", _percent(start["mean"]), _interval(start, 0, 1), "", "", "", ""))
    for row in study["rows"]:
        accuracy, less = row["accuracy"], row["difference"]
        if accuracy is None:
            lines.append((row["name"], "–", "–", "", "", "", _paper(row["paper"])))
            continue
        lines.append(
            (
                row["name"],
                _percent(accuracy["mean"]),
                _interval(accuracy, 0, 1),
                " / ".join(_percent(base["mean"]) for base in row["by_base"].values()),
                f"{_points(less['mean'])} ({_interval(less)})" if less else "",
                f"{sum(row['updates']) / len(row['updates']):.0f}",
                _paper(row["paper"]),
            )
        )
    less = f"less {study['baseline']}"
    head = ("row", "accuracy", "95 % interval", "by base", less, "updates", "paper")
    return _table(head, lines)


def _claims(study: Body) -> str:
    lines = []
    for claim in study["claims"]:
        found = claim["difference"]
        over = f" over {claim['over']}" if claim["over"] else ""
        by = "" if claim["by"] == "accuracy" else f", by {claim['by']}"
        lines.append(
            (
                claim["name"],
                f"{claim['says']} ({claim['row']}{over}{by})",
                claim["paper"],
                f"{_points(found['mean'])} ({_interval(found)})" if found else "",
                f"{claim['pairs']} x {claim['questions']}",
                f"**{claim['verdict']}**",
            )
        )
    head = ("", "claim", "paper", "ours, points (95 %)", "pairs x questions", "verdict")
    return _table(head, lines)


def _verifier(analyses: Sequence[Body]) -> str:
    """Figure 2a at the most samples; differences are means of the seeds'."""

    def last(analysis: Body, kind: str) -> float:
        value: float = analysis["verification"]["curves"][kind][-1]["value"]
        return value

    names: dict[str, Callable[[Body], float]] = {
        "greedy": lambda a: a["verification"]["greedy"]["value"],
        "majority vote": lambda a: last(a, "majority_vote"),
        "weighted vote": lambda a: last(a, "weighted_vote"),
        "best of N": lambda a: last(a, "best_of_n"),
        "Pass@N": lambda a: last(a, "pass_at_n"),
    }
    lines = [
        (name, *(_percent(read(each)) for each in analyses), _mean(map(read, analyses), _percent))
        for name, read in names.items()
    ]
    for ours, theirs in (("weighted vote", "majority vote"), ("best of N", "majority vote")):
        less = [names[ours](each) - names[theirs](each) for each in analyses]
        lines.append((f"{ours} less {theirs}", *map(_points, less), _mean(less, _points)))
    return _table(("", *_seeds(analyses), "mean (95 %, seeds)"), lines)


def _preference(analyses: Sequence[Body]) -> str:
    """Figures 2b and 2c on the samples of the warm-up policy: Top-2 less the other right responses."""
    kinds: dict[str, tuple[str, Callable[[float], str]]] = {
        "steps": ("steps", "{:+.2f}".format),
        "tokens": ("tokens", "{:+.2f}".format),
        "relevant_steps": ("relevant steps, points", _points),
        "operations_shown": ("operations shown, points", _points),
        "sound": ("sound, points", _points),
    }
    lines = []
    for kind, (name, form) in kinds.items():
        less = [each["sources"][0]["contrasts"][kind]["difference"]["value"] for each in analyses]
        lines.append((name, *map(form, less), _mean(less, form)))
    asked = ["questions", *(str(each["sources"][0]["compared"]) for each in analyses), ""]
    return _table(("Top-2 less others", *_seeds(analyses), "mean (95 %, seeds)"), [*lines, asked])


def _threshold(analyses: Sequence[Body]) -> str:
    """Shares of questions of which the rule keeps all right responses, none, or some."""
    lines = []
    for which in ("threshold", "Top-2"):
        rules = [_rule(each["sources"][0], which) for each in analyses]
        for part in ("all", "none", "some"):
            read = [rule[part]["value"] for rule in rules]
            name = f"{which}: {part} kept"
            lines.append((name, *map(_percent, read), _mean(read, _percent)))
    alphas = [
        "alpha that tells best",
        *(f"{each['sources'][0]['alpha']:g}" for each in analyses),
        "",
    ]
    return _table(("", *_seeds(analyses), "mean (95 %, seeds)"), [alphas, *lines])


def _rule(source: Body, which: str) -> Body:
    key, value = ("k", 2) if which == "Top-2" else ("alpha", source["alpha"])
    found: Body = next(each for each in source["survivals"] if each[key] == value)
    return found


def _sharing(study: Body, *, seed: int) -> str:
    """Of one seed, run in one go: where runs were taken up again, some of what they adopted had been their own."""
    first = study["bases"][0]
    cells = [cell for cell in study["cells"] if (cell["base"], cell["seed"]) == (first, seed)]
    costs = [cell["cost"] for cell in cells]
    steps, adopted, seconds, saved = (
        sum(cost[key] for cost in costs) for key in ("steps", "adopted", "seconds", "saved")
    )
    return (
        f"Of seed {seed} on base `{first}`, {adopted} of {steps} steps were adopted: {duration(seconds)} of step-time, "
        f"where it would have been {duration(seconds + saved)} without, {saved / (seconds + saved):.0%} less.\n"
    )


def _seeds(analyses: Iterable[Body]) -> list[str]:
    return [each["run"].removeprefix("teaching-prm-top-2-") for each in analyses]


def _mean(values: Iterable[float], form: Callable[[float], str]) -> str:
    found: Estimate = mean_estimate(list(values))
    low, high = found.low, found.high
    if low is None or high is None:
        return form(found.mean)
    if form is _percent:
        low, high = max(0.0, low), min(1.0, high)
    return f"{form(found.mean)} ({form(low)} to {form(high)})"


def _interval(found: Body, least: float | None = None, most: float | None = None) -> str:
    if found["low"] is None or found["high"] is None:
        return "–"
    form = _percent if least is not None else _points
    low = found["low"] if least is None else max(least, found["low"])
    high = found["high"] if most is None else min(most, found["high"])
    return f"{form(low)} to {form(high)}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f}"


def _points(share: float) -> str:
    return f"{share * 100:+.1f}"


def _paper(paper: Body | None) -> str:
    numbers = [(paper or {}).get(key) for key in ("in_domain", "mathvista")]
    known = [f"{number:g}" for number in numbers if number is not None]
    return " / ".join(known)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Write the page, or with --check fail when it differs."""
    page = TARGET.read_text(encoding="utf-8")
    new = render(page)
    if "--check" in sys.argv:
        if page != new:
            sys.exit("docs/reproduction.md is not up to date: run python tools/reproduction.py")
        return
    TARGET.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
