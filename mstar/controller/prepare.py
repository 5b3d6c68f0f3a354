"""A spec becomes a run: everything that can be checked is checked, then data and model go into the store."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mstar.config import HOW, RunSpec, spec_differences
from mstar.controller.benchmarks import benchmark_sources, check_benchmarks, stored_files
from mstar.controller.folders import check_models
from mstar.data.splits import Split, find_split
from mstar.data.validate import check_splits
from mstar.errors import ConflictError, NotFound
from mstar.history import Run, load_run, run_bytes, write_how
from mstar.plan import Inputs, check_schedule
from mstar.storage import keys
from mstar.storage.artifacts import commit_dataset, commit_model
from mstar.storage.manifest import Ref
from mstar.storage.store import Store


def prepare(store: Store, spec: RunSpec, inputs: Inputs | None = None) -> Run:
    """The run that ``spec`` asks for: new, or the stored one when it is the same.

    ``inputs`` are what ``store_inputs`` gave for the same data and models, where many runs share them.
    Raises ``ConflictError`` when the name belongs to a run of another spec or other inputs, naming what differs;
    ``DataError`` and ``ModelError`` for unusable inputs, before anything is written.
    """
    run = Run(spec=spec, inputs=inputs or store_inputs(store, spec))
    try:
        stored = load_run(store, spec.name)
    except NotFound:
        store.create(keys.spec(spec.name), run_bytes(run))
        stored = load_run(store, spec.name)
    _check_same(stored, run)
    # What decides results is the stored run's; how it runs now is this spec's.
    write_how(store, spec)
    updates = {name: getattr(spec, name) for name in HOW if name != "name"}
    return Run(spec=stored.spec.model_copy(update=updates), inputs=stored.inputs)


def check_inputs(spec: RunSpec) -> dict[str, int]:
    """Look at the data and the models that a spec names, and write nothing; queries by split."""
    check_models(spec)
    counts = check_splits(_splits(spec), max_pixels=spec.execution.max_pixels)
    check_schedule(spec, counts)
    check_benchmarks(benchmark_sources(spec), max_pixels=spec.execution.max_pixels)
    return counts


def _splits(spec: RunSpec) -> list[Split]:
    folder = Path(spec.data.path)
    names = [spec.data.train, spec.data.validation, *([spec.data.test] if spec.data.test else [])]
    if spec.evolve.unlabeled:
        names.append(spec.evolve.unlabeled.split)
    return [find_split(folder, name) for name in dict.fromkeys(names)]


def store_inputs(store: Store, spec: RunSpec) -> Inputs:
    """Check the data and the models that a spec names, every row, and store them. Raises as ``prepare``."""
    check_models(spec)
    splits = _splits(spec)
    counts = check_splits(splits, max_pixels=spec.execution.max_pixels)
    check_schedule(spec, counts)
    public = benchmark_sources(spec)
    check_benchmarks(public, max_pixels=spec.execution.max_pixels)
    # A data set of its own: the labeled one keeps its digest, and with it every step that runs without this share.
    apart = spec.evolve.unlabeled.split if spec.evolve.unlabeled else None
    data = _committed(store, [split for split in splits if split.name != apart], counts)
    unlabeled = [split for split in splits if split.name == apart]
    model = commit_model(store, Path(spec.model))
    return Inputs(
        data=data,
        queries=counts,
        model=Ref.of(model),
        unlabeled=_committed(store, unlabeled, counts) if unlabeled else None,
        teacher=Ref.of(commit_model(store, Path(spec.teacher))) if spec.teacher else None,
        benchmarks=Ref.of(commit_dataset(store, stored_files(public))) if public else None,
    )


def _committed(store: Store, splits: Sequence[Split], counts: Mapping[str, int]) -> Ref:
    files = {file.name: file for split in splits for file in split.files}
    rows = {file.name: split.file_rows(file) for split in splits for file in split.files}
    queries = {split.name: counts[split.name] for split in splits}
    return Ref.of(commit_dataset(store, files, results={"queries": queries}, rows=rows))


INPUTS = {
    "data": ("data.path", "the files hold other data"),
    "unlabeled": ("data.path", "the unlabeled files hold other data"),
    "model": ("model", "the folder holds another model"),
    "teacher": ("teacher", "the folder holds another model"),
    "benchmarks": ("evaluation.benchmarks.path", "the files hold other questions"),
}
"""Each input's key, and what it means that its content differs."""


def _check_same(stored: Run, wanted: Run) -> None:
    changes = spec_differences(stored.spec, wanted.spec)
    # Paths may move; what they hold may not.
    moved = [
        key
        for name, (key, _) in INPUTS.items()
        if getattr(stored.inputs, name) and getattr(wanted.inputs, name)
    ]
    changes = [change for change in changes if not change.startswith(tuple(f"{m}:" for m in moved))]
    changes += [
        f"{key}: {what} than when the run began"
        for name, (key, what) in INPUTS.items()
        if key in moved and getattr(stored.inputs, name) != getattr(wanted.inputs, name)
    ]
    if changes:
        raise ConflictError(
            f"run {stored.name!r} already exists with a different spec; these keys differ (stored -> now):\n  "
            + "\n  ".join(changes)
            + "\nGive the new run another name, or put the keys back to go on with the stored one."
        )
