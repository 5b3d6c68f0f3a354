"""What a plan talks about: what a run starts from, its steps, and what they found."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from mstar.config import RunSpec
from mstar.core.schedule import Turn, schedule
from mstar.errors import SpecError
from mstar.storage.manifest import Ref
from mstar.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a run starts from: the data set and its number of queries by split, the base model, and its teacher's base.

    ``benchmarks`` holds the published files of the benchmarks that the run ends with. Unlabeled queries are a data set
    of their own, so that runs with and without them share every other step.
    """

    data: Ref
    queries: Mapping[str, int]
    model: Ref
    unlabeled: Ref | None = None
    teacher: Ref | None = None
    benchmarks: Ref | None = None

    @classmethod
    def unknown(cls, queries: Mapping[str, int]) -> Self:
        """Stand-ins, so that a run can be planned before anything of it is stored."""
        nowhere = Ref(kind="model", id="0" * 64, digest="0" * 64)
        names = [f.name for f in fields(cls) if f.name != "queries"]
        return cls(queries=queries, **dict.fromkeys(names, nowhere))

    @property
    def refs(self) -> tuple[Ref, ...]:
        """All artifacts."""
        maybe = (self.unlabeled, self.teacher, self.benchmarks)
        return (self.data, self.model, *(ref for ref in maybe if ref))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage, to be executed once. ``name`` is ``phase/what``, unique in the run."""

    name: str
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished step: its commit and what it found."""

    name: str
    ref: Ref
    results: Mapping[str, Any]


Part = Generator[Step, Done, Ref]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """A trained PRM, and what measuring it found."""

    ref: Ref
    results: Mapping[str, Any]


def check_schedule(spec: RunSpec, queries: Mapping[str, int]) -> tuple[Turn, ...]:
    """The iterations of a run on so many queries by split; ``SpecError`` when there is no such schedule."""
    evolve, unlabeled = spec.evolve, spec.evolve.unlabeled
    if evolve.how.learns_from == "answers":
        return ()
    if unlabeled and unlabeled.split not in queries:
        raise SpecError(
            f"evolve.unlabeled.split is {unlabeled.split!r}, but the data set has {', '.join(queries)}"
        )
    try:
        return schedule(
            iterations=evolve.iterations,
            interval=evolve.interval,
            labeled=queries[spec.data.train],
            weights=evolve.how.weights,
            optimizer=evolve.how.optimizer,
            unlabeled=queries[unlabeled.split] if unlabeled else 0,
            after=unlabeled.after if unlabeled else None,
        )
    except ValueError as error:
        raise SpecError(f"evolve: {error}") from None
