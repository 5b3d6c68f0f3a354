"""From the store to records: what a finished run says of itself in its history, manifests and scored responses."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mstar.controller.status import Phase, read_status
from mstar.errors import IntegrityError, NotFound, SpecError
from mstar.history import Entry, Run, load_history, load_run
from mstar.report.collect import read_task
from mstar.storage.manifest import Manifest, sha256
from mstar.storage.reading import open_part, resolve
from mstar.storage.store import Store
from mstar.study.grid import Cell, described, fingerprint
from mstar.study.records import Answered, CellRecord, Cost, Point, Sampled, packed
from mstar.tasks import GenerateTask

GENERATE = re.compile(r"iter-(\d+)/generate")

OTHER_PHASES = frozenset({"base", "warm-up", "teacher", "prm", "final"})
"""Phases that are not the evolving: their training is shared by rows, and is not counted as updates of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a cell is not finished: what its run or its start says, with the exit code."""

    cell: Cell
    error: str
    exit_code: int


@dataclass(slots=True)
class Found:
    """What a store has of a study: records of finished cells, specs by fingerprint, and cells that failed."""

    records: list[CellRecord] = field(default_factory=list)
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)


def gather(store: Store, wanted: Iterable[Cell]) -> Found:
    """The records of the cells that ``store`` has finished runs of; runs of another spec are the caller's to tell.

    A run whose results are damaged or gone is a trouble, as one that failed is.
    """
    found = Found()
    runs: list[tuple[Cell, Run, list[Entry]]] = []
    for cell in wanted:
        status = read_status(store, cell.run)
        if status is None:
            continue
        if status.phase is Phase.FINISHED:
            try:
                runs.append((cell, load_run(store, cell.run), load_history(store, cell.run)))
            except NotFound:
                continue
            except (IntegrityError, SpecError) as error:
                trouble = Trouble(cell=cell, error=str(error), exit_code=error.exit_code)
                found.troubles.append(trouble)
        elif status.phase in {Phase.FAILED, Phase.CANCELLED}:
            trouble = Trouble(cell=cell, error=status.why, exit_code=status.exit_code or 1)
            found.troubles.append(trouble)
    made = {
        entry.ref.id: entry.seconds
        for _, _, entries in runs
        for entry in entries
        if not entry.adopted
    }
    with TemporaryDirectory(prefix="mstar-study-") as scratch:
        reader = _Reader(store, Path(scratch), made)
        for cell, run, entries in runs:
            description = described(run.spec)
            identity = fingerprint(description)
            assert identity is not None, "a spec that was just parsed parses"
            try:
                found.records.append(reader.record(cell, run, entries, identity))
            except (IntegrityError, NotFound) as error:
                # What one run has lost or damaged says nothing against the others.
                trouble = Trouble(cell=cell, error=str(error), exit_code=error.exit_code)
                found.troubles.append(trouble)
            else:
                found.specs[identity] = description
    return found


class _Reader:
    """Reads runs that share steps: each step's manifest and answers once."""

    def __init__(self, store: Store, scratch: Path, made: Mapping[str, float]) -> None:
        self._store = store
        self._scratch = scratch
        self._made = made
        self._manifests: dict[str, Manifest] = {}
        self._tests: dict[str, Answered] = {}

    def record(self, cell: Cell, run: Run, entries: Sequence[Entry], identity: str) -> CellRecord:
        manifests = [(entry, self._manifest(entry)) for entry in entries]
        tests = {
            entry.name.partition("/")[0]: self._test(manifest)
            for entry, manifest in manifests
            if entry.name.endswith("/test")
        }
        if "final" not in tests:
            raise IntegrityError(
                f"run {cell.run} is finished and has no final/test: it is another recipe's. Start it under another name"
            )
        points, updates, queries = _points(
            [(e.name, m.results) for e, m in manifests], self._temperatures(entries)
        )
        return CellRecord(
            run=cell.run,
            row=cell.row,
            base=cell.base,
            seed=cell.seed,
            spec=identity,
            data=run.inputs.data.digest,
            model=run.inputs.model.digest,
            teacher=run.inputs.teacher.digest if run.inputs.teacher else None,
            tests=tests,
            points=points,
            updates=updates,
            queries=queries,
            cost=self._cost(manifests),
            finished_at=entries[-1].finished_at,
            versions=next((m.versions for _, m in reversed(manifests) if m.versions), {}),
        )

    def _temperatures(self, entries: Sequence[Entry]) -> dict[int, float]:
        """At which each iteration sampled its labeled queries."""
        found = {}
        for entry in entries:
            if match := GENERATE.fullmatch(entry.name):
                task = read_task(self._store, entry.ref.id)
                if isinstance(task, GenerateTask):
                    found[int(match[1])] = task.sampling.temperature
        return found

    def _manifest(self, entry: Entry) -> Manifest:
        if entry.ref.id not in self._manifests:
            self._manifests[entry.ref.id] = resolve(self._store, entry.ref)
        return self._manifests[entry.ref.id]

    def _cost(self, manifests: Sequence[tuple[Entry, Manifest]]) -> Cost:
        adopted = [(entry, manifest) for entry, manifest in manifests if entry.adopted]
        return Cost(
            steps=len(manifests),
            adopted=len(adopted),
            seconds=round(sum(entry.seconds for entry, _ in manifests if not entry.adopted), 3),
            # Who made the step says what it took, or else its phases do.
            saved=round(
                sum(self._made.get(e.ref.id, sum(m.timings.values())) for e, m in adopted), 3
            ),
        )

    def _test(self, manifest: Manifest) -> Answered:
        if manifest.id not in self._tests:
            ids, right = self._greedy(manifest)
            sampled = manifest.results["sampled"]
            pass_at = {
                int(k): float(v) for k, v in (sampled[0]["pass_at"] if sampled else {}).items()
            }
            self._tests[manifest.id] = Answered(
                questions=sha256("\n".join(ids).encode())[:16],
                count=len(ids),
                correct=packed(right),
                pass_at=pass_at,
            )
        return self._tests[manifest.id]

    def _greedy(self, manifest: Manifest) -> tuple[list[str], list[bool]]:
        """Ids and verdicts of the greedy answers (temperature 0), in the test's order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [part for part in manifest.parts if part.name.endswith("scored.parquet")]
        ids: list[str] = []
        right: list[bool] = []
        for part in sorted(names, key=lambda part: part.name):
            path = open_part(self._store, part, self._scratch)
            try:
                table = pq.read_table(
                    path,
                    columns=["query_id", "correct"],
                    filters=[("temperature", "=", 0.0)],
                    use_threads=False,
                )
            except (pa.ArrowException, KeyError) as error:
                raise IntegrityError(f"{part.key} is not a readable table: {error}") from error
            ids += table.column("query_id").to_pylist()
            right += table.column("correct").to_pylist()
        if not ids:
            raise IntegrityError(f"step {manifest.id[:12]} has no greedy answers to compare")
        return ids, right


def _points(
    steps: Sequence[tuple[str, Mapping[str, Any]]], temperatures: Mapping[int, float]
) -> tuple[tuple[Point, ...], int, int]:
    """The evaluated policies of evolving in order, and the totals of updates and queries.

    Methods that restart their optimizer restart its counter, so what each train step did is summed.
    """
    points: list[Point] = []
    updates = queries = 0
    scored = {name.partition("/")[0] for name, _ in steps if "/score" in name}
    for name, results in steps:
        phase, _, what = name.partition("/")
        if phase in OTHER_PHASES:
            continue
        if what == "train":
            updates += int(results["optimizer_steps"])
            if phase not in scored:  # bare answers: every example is a query
                queries += int(results["examples"])
        elif what.startswith("score"):
            queries += int(results["queries"])
        elif what == "evaluate":
            number = phase.rpartition("-")[2]
            iteration = int(number) if number.isdecimal() else 1
            greedy = results["greedy"]
            points.append(
                Point(
                    iteration=iteration,
                    updates=updates,
                    queries=queries,
                    questions=int(results["queries"]),
                    greedy=float(greedy["accuracy"]) if greedy else None,
                    temperature=temperatures.get(iteration + 1, temperatures.get(iteration)),
                    sampled=tuple(map(_sampled, results["sampled"])),
                )
            )
    return tuple(points), updates, queries


def _sampled(point: Mapping[str, Any]) -> Sampled:
    return Sampled(
        temperature=point["temperature"],
        pass_at={int(k): float(value) for k, value in point["pass_at"].items()},
        reward_pass_at_2=point["reward_pass_at_2"],
    )
