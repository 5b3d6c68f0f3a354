"""What a store has already of a run: its inputs, and the steps that it would adopt."""

from collections.abc import Callable, Mapping
from pathlib import Path

from mstar.config import RunSpec
from mstar.data.splits import find_split
from mstar.errors import NotFound
from mstar.history import done_step, load_run
from mstar.plan import Inputs
from mstar.recipe import Done, Step
from mstar.storage.manifest import ArtifactKind, Ref
from mstar.storage.parts import files_below
from mstar.storage.reading import read_manifest
from mstar.storage.store import Store
from mstar.tasks import task_hash


def made_up_inputs(spec: RunSpec, queries: Mapping[str, int]) -> Inputs:
    """Inputs that are in no store: enough to plan by."""

    def ref(kind: ArtifactKind, name: str) -> Ref:
        return Ref(kind=kind, id=name, digest=name)

    return Inputs(
        data=ref("dataset", "data"),
        queries=queries,
        model=ref("model", "model"),
        unlabeled=ref("dataset", "unlabeled") if spec.evolve.unlabeled else None,
        teacher=ref("model", "teacher") if spec.teacher else None,
        benchmarks=_benchmarks(spec),
    )


def _benchmarks(spec: RunSpec) -> Ref | None:
    """A stand-in: what the benchmarks' files are is not looked at, so their step counts as to be made."""
    asked = spec.evaluation.benchmarks
    return Ref(kind="dataset", id="benchmarks", digest="benchmarks") if asked else None


def stored_inputs(store: Store, spec: RunSpec, queries: Mapping[str, int]) -> Inputs | None:
    """The inputs as the store has them; None when it has not all of them.

    They are those of the stored run of this name, else artifacts whose files have the names and sizes of the spec's
    folders: to compare their contents would mean to read all of them. Raises what a store that cannot be read raises.
    """
    try:
        return load_run(store, spec.name).inputs
    except NotFound:
        pass
    if not Path(spec.data.path).is_dir():
        return None
    apart = spec.evolve.unlabeled.split if spec.evolve.unlabeled else None
    names = [spec.data.train, spec.data.validation, *([spec.data.test] if spec.data.test else [])]
    folder = Path(spec.data.path)

    def files(split: str) -> dict[str, int]:
        return {file.name: file.stat().st_size for file in find_split(folder, split).files}

    labeled: dict[str, int] = {}
    for name in dict.fromkeys(names):
        labeled |= files(name)
    data = _find(store, "dataset", labeled)
    model = _find(store, "model", _sizes(spec.model))
    teacher = _find(store, "model", _sizes(spec.teacher)) if spec.teacher else None
    unlabeled = _find(store, "dataset", files(apart)) if apart else None
    if not data or not model or (spec.teacher and not teacher) or (apart and not unlabeled):
        return None
    return Inputs(
        data=data,
        queries=queries,
        model=model,
        unlabeled=unlabeled,
        teacher=teacher,
        benchmarks=_benchmarks(spec),
    )


def _sizes(model: str) -> dict[str, int]:
    folder = Path(model)
    if not folder.is_dir():
        return {}
    found = files_below(folder, hidden=False)
    return {name: path.stat().st_size for name, path in found.items()}


def _find(store: Store, kind: ArtifactKind, wanted: Mapping[str, int]) -> Ref | None:
    """The artifact of that kind whose parts have these names and sizes."""
    if not wanted:
        return None
    folder = "datasets" if kind == "dataset" else "models"
    for key in store.list(folder):
        if not key.endswith("/manifest.json") or key.count("/") != 2:
            continue
        manifest = read_manifest(store, kind, key.split("/")[1])
        if manifest and {part.name: part.size for part in manifest.parts} == wanted:
            return Ref.of(manifest)
    return None


def committed(store: Store) -> Callable[[Step], Done | None]:
    """What asks a store for a step: as done, or None when it has no commit of it."""

    def known(step: Step) -> Done | None:
        manifest = read_manifest(store, "step", task_hash(step.task))
        return None if manifest is None else done_step(step, manifest)

    return known
