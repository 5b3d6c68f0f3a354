"""The final comparison: base, warm-up and every run's last policy on the held-out test set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mstar.report.collect import collect, elapsed_seconds, work_seconds
from mstar.report.views import Evaluation, RunView, Share
from mstar.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy's test. ``minutes`` is the work of its run's steps from the first to this test.

    ``pass_at`` is Pass@``k`` for the largest k measured.
    """

    key: str
    label: str
    run: str
    accuracy: Share
    k: int | None
    pass_at: float | None
    minutes: float

    def as_result(self) -> dict[str, Any]:
        """The row as ``results.json`` has it: accuracy, low, high, n and pass_at_<k>."""
        share = self.accuracy
        result = {"accuracy": share.value, "low": share.low, "high": share.high, "n": share.n}
        return result if self.k is None else result | {f"pass_at_{self.k}": self.pass_at}


def results_table(runs: Sequence[RunView]) -> list[Row]:
    """Base and warm-up, once where runs share them, then the last policy of each run; rows only for what is done."""
    rows: list[Row] = []
    for phase, label in (("base", "base"), ("warm-up", "warm-up"), ("final", "")):
        seen: set[str] = set()
        for run in runs:
            step = run.step(f"{phase}/test")
            if step is None or step.ref.id in seen:
                continue
            row = _row(run, phase, label or run.name)
            if row is None:
                continue
            if label and seen:  # runs that begin differently
                row = replace(row, label=f"{label} ({run.name})")
            seen.add(step.ref.id)
            rows.append(row)
    return rows


def summarise(store: Store, names: Mapping[str, str]) -> dict[str, Any]:
    """What ``results.json`` holds, for runs called by what they are (``{"mstar": run name, ...}``).

    ``base``, ``warm_up`` and each of the given names are ``{accuracy, low, high, n, pass_at_16}``, or None for a test
    that is not done. ``minutes`` is the time in which a step was at work, ``work_minutes`` the sum over all steps.
    """
    runs = collect(store, list(dict.fromkeys(names.values())))
    by_name = {run.name: run for run in runs}
    rows = {
        "base": _first(runs, "base"),
        "warm_up": _first(runs, "warm-up"),
        **{key: _row(by_name[name], "final", key) for key, name in names.items()},
    }
    results: dict[str, Any] = {key: row.as_result() if row else None for key, row in rows.items()}
    prm = next((run.prm for run in runs if run.prm and run.prm.held_out), None)
    verify = next((run.prm.verification for run in runs if run.prm and run.prm.verification), None)
    return results | {
        "minutes": round(elapsed_seconds(runs) / 60, 3),
        "work_minutes": round(work_seconds(runs) / 60, 3),
        "minutes_by_row": {key: round(row.minutes, 3) for key, row in rows.items() if row},
        "runs": dict(names),
        "seed": {key: by_name[name].spec.seed for key, name in names.items()},
        "validation": {key: _validation(by_name[name]) for key, name in names.items()},
        "temperatures": {
            key: [i.temperature for i in by_name[name].iterations if i.temperature is not None]
            for key, name in names.items()
        },
        "prm_held_out": asdict(prm.held_out) if prm and prm.held_out else None,
        "verification": {str(n): dict(found) for n, found in verify.verification.items()}
        if verify
        else None,
        "versions": dict(runs[0].versions) if runs else {},
    }


def _validation(run: RunView) -> list[float | None]:
    """Greedy accuracy on validation by iteration, from 0."""
    return [
        i.evaluation.greedy.value if i.evaluation and i.evaluation.greedy else None
        for i in run.iterations
    ]


def _first(runs: Sequence[RunView], phase: str) -> Row | None:
    return next((row for run in runs if (row := _row(run, phase, phase))), None)


def _row(run: RunView, phase: str, label: str) -> Row | None:
    test = run.tests.get(phase)
    if test is None or test.greedy is None:
        return None
    k, value = largest_pass(test)
    return Row(
        key=phase,
        label=label,
        run=run.name,
        accuracy=test.greedy,
        k=k,
        pass_at=value,
        minutes=_seconds_until(run, f"{phase}/test") / 60,
    )


def largest_pass(evaluation: Evaluation) -> tuple[int | None, float | None]:
    """The largest K measured and Pass@K there, at the only or the lowest temperature."""
    k = evaluation.largest_k
    if k is None:
        return None, None
    return k, next(point.pass_at[k] for point in evaluation.sampled if k in point.pass_at)


def _seconds_until(run: RunView, last: str) -> float:
    total = 0.0
    for step in run.steps:
        total += step.seconds
        if step.name == last:
            break
    return total
