"""What a run is and has done, as the store has it."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mstar.config import HOW, NAME, RunSpec, parse_spec
from mstar.errors import IntegrityError, NotFound
from mstar.recipe import Done, Inputs, Step
from mstar.storage import keys
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import resolve
from mstar.storage.store import Store

MAYBE = ("unlabeled", "teacher", "benchmarks")
"""What only some runs start from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it was submitted."""

    spec: RunSpec
    inputs: Inputs

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A finished step in a run's history. ``seconds``: wall time.

    ``adopted``: another run had committed it before; ``saved`` are the seconds that its making took there.
    """

    index: int
    name: str
    ref: Ref
    adopted: bool
    seconds: float
    finished_at: float
    saved: float = 0.0


def run_bytes(run: Run) -> bytes:
    """A run as stored."""
    body: dict[str, Any] = {
        "spec": run.spec.model_dump(mode="json"),
        "inputs": {
            "data": run.inputs.data.model_dump(),
            "queries": dict(run.inputs.queries),
            "model": run.inputs.model.model_dump(),
        },
    }
    for key in MAYBE:
        if ref := getattr(run.inputs, key):
            body["inputs"][key] = ref.model_dump()
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()


def load_run(store: Store, name: str) -> Run:
    """The run called ``name``, to be run as last asked; ``NotFound`` when there is none, naming those there are."""
    raw = None
    if NAME.fullmatch(name):
        with suppress(NotFound):
            raw = store.get(keys.spec(name))
    if raw is None:
        known = ", ".join(run_names(store)) or "none"
        raise NotFound(f"no run {name!r} in {store.url}; runs there: {known}")
    body = _json(raw, keys.spec(name))
    try:
        inputs = body["inputs"]
        return Run(
            spec=_as_noted(
                store, parse_spec(body["spec"], source=f"the stored spec of run {name}")
            ),
            inputs=Inputs(
                data=Ref.model_validate(inputs["data"]),
                queries={split: int(count) for split, count in inputs["queries"].items()},
                model=Ref.model_validate(inputs["model"]),
                **{key: Ref.model_validate(inputs[key]) for key in MAYBE if key in inputs},
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{keys.spec(name)} in {store.url} is not a run's record ({error})"
        ) from None


def run_names(store: Store) -> list[str]:
    """All runs in a store, sorted."""
    return sorted(key.split("/")[1] for key in store.list("runs") if key.endswith("/spec.json"))


def write_how(store: Store, spec: RunSpec) -> None:
    """Note how a run is to run from now on: what of its spec does not change results."""
    body = spec.model_dump(mode="json", include=set(HOW) - {"name", "store"}, exclude_unset=True)
    store.put(keys.how(spec.name), (json.dumps(body, indent=1) + "\n").encode())


def _as_noted(store: Store, spec: RunSpec) -> RunSpec:
    """The spec with what was last noted of how to run it."""
    key = keys.how(spec.name)
    try:
        body = _json(store.get(key), key)
    except NotFound:
        return spec
    noted = set(HOW) - {"name", "store"}  # what the note leaves out is to be as usual again
    fields = spec.model_dump(mode="json", exclude_unset=True, exclude=noted) | body
    return parse_spec(fields, source=f"{key} of run {spec.name}")


def load_history(store: Store, name: str, known: Sequence[Entry] = ()) -> list[Entry]:
    """A run's finished steps in order; ``IntegrityError`` when one is unreadable or missing in between.

    What is ``known`` of it from an earlier look is not fetched again.
    """
    entries: list[Entry] = []
    have = {keys.history(name, entry.index, entry.name): entry for entry in known}
    for position, key in enumerate(store.list(f"{keys.run(name)}/history")):
        if key in have:
            entries.append(have[key])
            continue
        body = _json(store.get(key), key)
        try:
            entry = Entry(
                index=int(body["index"]),
                name=str(body["name"]),
                ref=Ref.model_validate(body["ref"]),
                adopted=bool(body["adopted"]),
                seconds=float(body["seconds"]),
                finished_at=float(body["finished_at"]),
                saved=float(body.get("saved", 0.0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{key} is not a history entry ({error})") from None
        if entry.index != position:
            raise IntegrityError(
                f"{key}: expected step {position} of the run here; an entry before it is missing"
            )
        entries.append(entry)
    return entries


def append_entry(store: Store, run: str, entry: Entry) -> None:
    """Add a finished step; whoever adds the same one second changes nothing."""
    body = {
        "index": entry.index,
        "name": entry.name,
        "ref": entry.ref.model_dump(),
        "adopted": entry.adopted,
        "seconds": entry.seconds,
        "finished_at": entry.finished_at,
        "saved": entry.saved,
    }
    store.create(
        keys.history(run, entry.index, entry.name), (json.dumps(body, indent=1) + "\n").encode()
    )


def forget_history(store: Store, run: str, index: int) -> None:
    """Drop a run's entries from ``index`` on, the last first; the steps that they named stay where they are."""
    for key in sorted(store.list(f"{keys.run(run)}/history"), reverse=True)[: -index or None]:
        store.delete(key)


def done_of(store: Store, entry: Entry) -> Done:
    """A history entry with what its step found; ``IntegrityError`` when the manifest is not the one recorded."""
    manifest = resolve(store, entry.ref)
    return Done(name=entry.name, ref=entry.ref, results=manifest.results)


def done_step(step: Step, manifest: Manifest) -> Done:
    """A step with its commit."""
    return Done(name=step.name, ref=Ref.of(manifest), results=manifest.results)


def _json(raw: bytes, key: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise IntegrityError(
            f"{key} is damaged: {error}; restore it from a backup or start a new run"
        ) from None
