"""The data set and the models that a spec may name without having them: ``demo:digits``, ``demo:base``.

``demo:base`` ships with the project; ``demo:base?seed=1&size=small`` is pre-trained when it is first asked for (some
minutes on two cores) and kept, as the data set is, in the user's cache folder. What is made is moved into place whole,
so an interrupted build leaves nothing that would be taken for a finished one.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl

from mstar.config import RunSpec
from mstar.demo.specs import base_folder
from mstar.errors import MissingDependency, SpecError, StorageError

SCHEME = "demo:"
DATA = "digits"
MODEL = "base"
SIZES = ("base", "small")
VERSION = 1
"""Raised when the same name would give other data or another model."""

Progress = Callable[[str, int, int], None]
"""What is being made, the step, and of how many."""


def silent(what: str, step: int, total: int) -> None:
    """Tell nobody."""


def is_builtin(spec: RunSpec) -> bool:
    """Whether the spec names anything built-in."""
    named = (spec.data.path, spec.model, spec.teacher or "")
    return any(name.startswith(SCHEME) for name in named)


def resolve_inputs(spec: RunSpec, progress: Progress = silent) -> RunSpec:
    """The spec with folders in place of built-in names, which are made if they are not there yet.

    Raises ``SpecError`` for a name that there is not, ``MissingDependency`` where the demo's packages are not
    installed, ``StorageError`` where the cache folder cannot be written.
    """
    data = spec.data
    if data.path.startswith(SCHEME):
        data = data.model_copy(update={"path": str(_data(data.path))})
    models = {"model": spec.model, "teacher": spec.teacher}
    for key, name in models.items():
        if name and name.startswith(SCHEME):
            models[key] = str(_model(key, name, progress))
    return spec.model_copy(update={"data": data} | models)


def cache_folder() -> Path:
    """Where built-in inputs are kept: ``mstar`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mstar"


def _data(name: str) -> Path:
    if name != SCHEME + DATA:
        raise SpecError(f"data.path is {name!r}, but the only built-in data set is {SCHEME + DATA}")

    def make(folder: Path) -> None:
        from mstar.demo.dataset import ALL_SIZES, write_dataset

        write_dataset(folder, sizes=ALL_SIZES)

    return _kept(f"digits-{VERSION}", make)


def _model(key: str, name: str, progress: Progress) -> Path:
    seed, size = _variant(key, name)
    if (seed, size) == (0, "base"):
        return base_folder()

    def make(folder: Path) -> None:
        from mstar.demo.pretrain import Pretraining, build_base

        def tell(phase: str, step: int, total: int, loss: float) -> None:
            del loss
            progress(f"pre-training {name}: {phase}", step, total)

        build_base(folder, Pretraining(seed=seed, size=size), progress=tell)

    return _kept(f"{size}-seed{seed}-{VERSION}", make)


def _variant(key: str, name: str) -> tuple[int, str]:
    """Seed and size of ``demo:base?seed=1&size=small``."""
    known = f"{SCHEME}{MODEL}, or {SCHEME}{MODEL}?seed=1&size=small (sizes: {', '.join(SIZES)})"
    path, _, query = name.removeprefix(SCHEME).partition("?")
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        seed, size = int(given.pop("seed", "0")), given.pop("size", "base")
    except ValueError:
        given, seed, size = {"?": ""}, 0, ""
    if path != MODEL or given or size not in SIZES or seed < 0:
        raise SpecError(f"{key} is {name!r}, but the built-in models are {known}")
    return seed, size


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache, made now if it is not there."""
    kept = cache_folder() / name
    if kept.is_dir():
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f"{name}.") as scratch:
            made = Path(scratch) / "made"
            make(made)
            try:
                made.rename(kept)
            except OSError:
                if not kept.is_dir():  # else another process was quicker with the same
                    raise
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"the built-in data and models need the package {error.name}; install mstar[demo]"
        ) from None
    except OSError as error:
        raise StorageError(f"{kept} cannot be made: {error}") from None
    return kept
