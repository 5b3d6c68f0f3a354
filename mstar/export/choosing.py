"""Which of a run's checkpoints is meant: one by name, the last, or the best on validation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mstar.errors import NotFound, SpecError
from mstar.history import Entry
from mstar.storage.manifest import Manifest
from mstar.tasks import EvaluateTask, Task, TrainTask

ITERATION = re.compile(r"(iter-\d+|sft)/evaluate")
LAST, BEST = "last", "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished step: its place in the history, what it was asked, and what it committed."""

    entry: Entry
    task: Task
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def results(self) -> Mapping[str, Any]:
        return self.manifest.results


def choose(run: str, steps: Sequence[Made], wanted: str = LAST, *, prm: bool = False) -> Made:
    """The checkpoint: ``wanted`` is ``last``, ``best``, or a train step's name, whole or without ``/train``.

    ``best`` is that of the highest greedy accuracy on validation; of equal ones the one that was trained least. ``prm``
    asks for the process reward model. Raises ``NotFound`` when there is no such checkpoint (yet).
    """
    trained = [step for step in steps if isinstance(step.task, TrainTask)]
    if prm:
        if wanted not in {LAST, "prm/train", "prm"}:
            raise SpecError(
                f"--prm takes the run's one reward model, so --step {wanted} does not fit; give one of them"
            )
        found = [step for step in trained if step.name == "prm/train"]
        if not found:
            raise NotFound(f"run {run} has no reward model{_so_far(steps)}")
        return found[0]
    own = [step for step in trained if step.name not in {"prm/train", "prm/completer", "teacher/train"}]  # fmt: skip
    if wanted == LAST:
        if not own:
            raise NotFound(f"run {run} has no checkpoint yet{_so_far(steps)}")
        return own[-1]
    if wanted == BEST:
        return _best(run, steps, own)
    for step in trained:
        if wanted in {step.name, step.name.removesuffix("/train")}:
            return step
    names = ", ".join(step.name for step in trained) or "none yet"
    raise NotFound(f"run {run} has no checkpoint {wanted!r}; it has: {names} (or last, best)")


def _best(run: str, steps: Sequence[Made], own: Sequence[Made]) -> Made:
    by_id = {step.entry.ref.id: step for step in own}
    scored = [
        (step.results["greedy"]["accuracy"], by_id[step.task.model.id])
        for step in steps
        if ITERATION.fullmatch(step.name)
        and isinstance(step.task, EvaluateTask)
        and step.task.model.id in by_id
        and step.results.get("greedy")
    ]
    if not scored:
        raise NotFound(
            f"no checkpoint of run {run} was measured on validation yet{_so_far(steps)}; --step last takes the newest"
        )
    highest = max(accuracy for accuracy, _ in scored)
    return next(step for accuracy, step in scored if accuracy == highest)


def _so_far(steps: Sequence[Made]) -> str:
    return f": {len(steps)} steps are done, the last is {steps[-1].name}" if steps else ": no step is done"  # fmt: skip
