"""From files to specs: ``extends``, overrides, anchored paths, and one message that names every mistake."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mstar.config.spec import HOW, RunSpec
from mstar.errors import SpecError
from mstar.mistakes import half_address, kind_of, mistakes
from mstar.optimization import nothing_to_train


def parse_spec(raw: object, *, source: str = "the spec") -> RunSpec:
    """A run spec from parsed YAML or JSON; ``SpecError`` lists every mistake found."""
    if not isinstance(raw, Mapping):
        raise SpecError(f"{source}: expected keys and values, found {kind_of(raw)}")
    try:
        return RunSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(
            f"{source} is not valid:\n" + "\n".join(mistakes(error, RunSpec, "spec"))
        ) from None


def load_spec(path: Path, overrides: Iterable[str] = ()) -> RunSpec:
    """The spec in a YAML file, with ``a.b=c`` overrides applied; relative paths are relative to the file.

    ``extends`` names a file that it is laid over, which may extend another: groups of keys are merged, anything else
    replaces. Relative paths in that file are relative to that one. Raises ``SpecError``, also for a circle of files.
    """
    raw = _extended(path, ())
    for override in overrides:
        apply_override(raw, override)
    spec = parse_spec(raw, source=str(path))
    _check_training(spec, path)
    return _anchored(spec, path.resolve().parent)


def _check_training(spec: RunSpec, path: Path) -> None:
    """Asked of what a person writes, not of specs in a store, where runs that failed by it must stay readable."""
    for key, part in (("warm_up", spec.warm_up), ("prm", spec.prm), ("evolve", spec.evolve)):
        if part and (why := nothing_to_train(part.optimization, head=key == "prm")):
            raise SpecError(f"{path} is not valid:\n  {key}.optimization.{why}")


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set ``a.b=c`` in a parsed spec, ``c`` read as YAML; ``SpecError`` when it has no such form."""
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise SpecError(
            f"--set {override!r}: expected key.key=value, for example --set evolve.iterations=4"
        )
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise SpecError(
            f"--set {override!r}: the value is not YAML; put text with {{ }} [ ] : or # in quotes, "
            f"'key=\"text\"': {error}"
        ) from None
    target = raw
    for name in names[:-1]:
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
        if not isinstance(target, dict):
            raise SpecError(f"--set {override!r}: {name} is not a group of keys")
    target[names[-1]] = value


def spec_differences(old: RunSpec, new: RunSpec) -> list[str]:
    """Keys whose values decide results and differ, each as ``key: old -> new``."""
    before, after = (_flat(spec.model_dump(mode="json", exclude=set(HOW))) for spec in (old, new))
    keys = sorted(before.keys() | after.keys())
    absent = "absent"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in keys
        if before.get(key, absent) != after.get(key, absent)
    ]


def read_yaml(text: str) -> Any:
    """A YAML text's value. Raises ``yaml.YAMLError``, also for a key that stands twice in one group."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe one
    except (
        ValueError,
        RecursionError,
    ) as error:  # a date that is none, a number of thousands of digits
        raise yaml.YAMLError(str(error)) from None


def expanded(path: str) -> Path:
    """A path with ``~`` read as a home. ``SpecError`` for the home of nobody."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SpecError(f"{path}: there is no such home folder") from None


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake, not the last one's win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001 - yaml's
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # no text, and refused by what reads it
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                where = f"line {key.start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice ({where})", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _extended(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """A file's keys laid over those of the file that it extends. ``below`` are the files that led here."""
    place = path.resolve()
    if place in below:
        circle = " -> ".join(str(file) for file in (*below[below.index(place) :], place))
        raise SpecError(f"extends goes in a circle: {circle}")
    raw = _read(path, below[-1] if below else None)
    if "extends" not in raw:
        return raw
    other = raw.pop("extends")
    if not isinstance(other, str) or not other:
        raise SpecError(f"{path}: extends must be the path of a YAML file, found {other!r}")
    file = place.parent / expanded(other)
    lower = _extended(file, (*below, place))
    return _laid_over(_anchored_keys(lower, file.resolve().parent), raw)


def _read(path: Path, by: Path | None) -> dict[str, Any]:
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = f"{by} extends it" if by else "pass the path of a YAML file with -f"
        raise SpecError(f"no spec at {path}: {hint}") from None
    except IsADirectoryError:
        raise SpecError(f"{path} is a folder: pass the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path} is no text in UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: expected keys and values, found {kind_of(raw)}")
    copy: dict[str, Any] = _unshared(raw)
    return copy


def _laid_over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """Groups merge, key by key; null, a list and a value replace."""
    merged = dict(lower)
    for key, value in upper.items():
        under = lower.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            merged[key] = _laid_over(under, value)
        else:
            merged[key] = value
    return merged


def _anchored_keys(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same keys, with the paths that are there made absolute; what is no text is left for parsing to refuse."""
    found = dict(raw)
    for key in ("model", "teacher", "store"):
        if isinstance(raw.get(key), str):
            found[key] = _anchor(raw[key], folder)
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        found["data"] = data | {"path": _anchor(data["path"], folder)}
    evaluation = raw.get("evaluation")
    files = evaluation.get("benchmarks") if isinstance(evaluation, dict) else None
    if (
        isinstance(evaluation, dict)
        and isinstance(files, dict)
        and isinstance(files.get("path"), str)
    ):
        anchored = files | {"path": _anchor(files["path"], folder)}
        found["evaluation"] = evaluation | {"benchmarks": anchored}
    return found


def _anchored(spec: RunSpec, folder: Path) -> RunSpec:
    """Relative paths in a spec file are relative to that file, whatever folder the command runs in."""
    data = spec.data.model_copy(update={"path": _anchor(spec.data.path, folder)})
    teacher = _anchor(spec.teacher, folder) if spec.teacher else None
    evaluation = spec.evaluation
    if files := evaluation.benchmarks:
        files = files.model_copy(update={"path": _anchor(files.path, folder)})
        evaluation = evaluation.model_copy(update={"benchmarks": files})
    places = {"model": _anchor(spec.model, folder), "store": _anchor(spec.store, folder)}
    return spec.model_copy(
        update={"data": data, "teacher": teacher, "evaluation": evaluation} | places
    )


def _anchor(path: str, folder: Path) -> str:
    # An address stays, and so does the name of something built in (demo:digits).
    if "://" in path or path.startswith("demo:"):
        return path
    if scheme := half_address(path):
        raise SpecError(
            f"{path} is no address and no path: expected {scheme}//…, or a path that does not begin with {scheme}"
        )
    return os.path.normpath(folder / expanded(path))


def _unshared(value: Any) -> Any:
    """A copy in which what a YAML alias repeats is there each time, so that an override changes one of them."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat
