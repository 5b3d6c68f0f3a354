"""The spec that a person names on the command line, with the built-in data and models it may ask for in place."""

from pathlib import Path

from mstar.config import RunSpec, load_spec
from mstarctl import show


def read_spec(
    file: Path, overrides: list[str], *, fresh: bool = False, as_json: bool = False
) -> RunSpec:
    """The spec in ``file`` with ``overrides``; a ``fresh`` one adopts no other run's steps.

    Raises as ``load_spec`` and ``resolve_inputs``.
    """
    spec = load_spec(file, overrides)
    if fresh:
        spec = spec.model_copy(update={"fresh": spec.name})
    return in_place(spec, as_json=as_json)


def in_place(spec: RunSpec, *, as_json: bool = False) -> RunSpec:
    """The spec with folders for its built-in names; one that is not there yet is made, which is shown."""
    from mstar.demo.builtin import is_builtin, resolve_inputs

    if not is_builtin(spec):
        return spec
    with show.bar("built-in inputs", as_json=as_json) as tell:
        return resolve_inputs(spec, lambda what, step, total: tell(step, total, what))
