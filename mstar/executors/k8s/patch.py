"""A patch over a pod, as ``kubectl patch --type strategic`` merges it: pure, on plain dicts.

Mappings merge and null removes a key. Lists that Kubernetes keys (containers by name, volume mounts by path …) merge by
that key, and what the patch names comes first unless the pod has an order for it; all other lists are replaced. The
directives ``$patch: replace|delete``, ``$retainKeys``, ``$deleteFromPrimitiveList/…`` and ``$setElementOrder/…`` work.
Where there is nothing to replace, kubectl drops what was to replace it; here it is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from mstar.errors import SpecError

Object = dict[str, Any]

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "ownerReferences": "uid",
}
"""The lists of a pod that merge, and the field that tells their elements apart (Kubernetes' patchMergeKey)."""

_SETS = {"finalizers"}  # lists of strings that merge as sets
_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def strategic_merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Object:
    """``patch`` over ``base``; neither is changed. ``SpecError`` for a directive or an element that makes no sense."""
    return _mapping(deepcopy(dict(base)), patch, "patch")


def _mapping(base: Object, patch: Mapping[str, Any], where: str) -> Object:
    """``patch`` over ``base``, which is changed."""
    how = patch.get("$patch")
    if how is not None:
        _check(how in {"replace", "delete"}, f"{where}: $patch is {how!r}, not replace or delete")
        return {} if how == "delete" else _plain(patch)
    _retain(base, patch, where)
    before = {key: list(value) for key, value in base.items() if isinstance(value, list)}
    for name, value in patch.items():
        if name.startswith(_DELETE):
            key = name.removeprefix(_DELETE)
            _check(isinstance(value, list), f"{where}: {name} needs a list")
            if isinstance(base.get(key), list):
                base[key] = [item for item in base[key] if item not in value]
        elif name.startswith("$"):
            known = name == "$retainKeys" or name.startswith(_ORDER)
            _check(known, f"{where}: {name} is no directive of a strategic merge patch")
        elif value is None:
            base.pop(name, None)
        else:
            base[name] = _value(name, base.get(name), value, f"{where}.{name}")
    for name, order in patch.items():
        key = name.removeprefix(_ORDER)
        if key != name and isinstance(base.get(key), list):
            own, place = patch.get(key) or [], f"{where}.{key}"
            base[key] = _reordered(key, base[key], own, order, before.get(key, []), place)
    return base


def _retain(base: Object, patch: Mapping[str, Any], where: str) -> None:
    """Drop what ``$retainKeys`` does not name."""
    if "$retainKeys" not in patch:
        return
    kept = patch["$retainKeys"]
    _check(isinstance(kept, list), f"{where}: $retainKeys needs a list of keys")
    for key, value in patch.items():
        fine = key in kept or key.startswith("$") or value is None
        _check(fine, f"{where}: $retainKeys does not name {key}, which the patch sets")
    for key in set(base) - set(kept):
        del base[key]


def _value(key: str, base: object, patch: object, where: str) -> Any:
    if isinstance(base, dict) and isinstance(patch, Mapping):
        return _mapping(base, patch, where)
    if isinstance(base, list) and isinstance(patch, list):
        return _list(key, base, patch, where)
    return _plain(patch)


def _list(key: str, base: list[Any], patch: Sequence[Any], where: str) -> list[Any]:
    if key in _SETS:
        items = base + [item for item in patch if item not in base]
        return _ordered(items, list(patch), base, lambda item: item)
    name = MERGE_KEYS.get(key)
    if name is None:
        return [_plain(item) for item in patch if not _is_directive(item)]
    for item in patch:
        _check(isinstance(item, Mapping), f"{where}: expected mappings, found {item!r}")
        how = item.get("$patch")
        fine = how in {None, "replace", "delete"}
        _check(fine, f"{where}: $patch is {how!r} in a list, not replace or delete")
        hint = f"{where}: each element needs {name}, which tells it from the others"
        _check(how == "replace" or name in item, f"{hint}, found {item}")
    own = [item for item in patch if "$patch" not in item]
    if any(item.get("$patch") == "replace" for item in patch):
        return [_plain(item) for item in own]
    gone = [item[name] for item in patch if "$patch" in item]
    left = [old for old in base if old.get(name) not in gone]
    merged = list(left)
    for item in own:
        at = next((i for i, old in enumerate(merged) if old.get(name) == item[name]), None)
        if at is None:
            merged.append(_plain(item))
        else:
            merged[at] = _mapping(merged[at], item, f"{where}[{item[name]}]")
    return _ordered(merged, own, left, lambda item: item.get(name))


def _reordered(
    key: str,
    merged: list[Any],
    patch: Sequence[Any],
    order: object,
    before: Sequence[Any],
    where: str,
) -> list[Any]:
    """A merged list in the order that ``$setElementOrder`` asks for."""
    name = MERGE_KEYS.get(key)
    mergeable = isinstance(order, list) and (name is not None or key in _SETS)
    _check(mergeable, f"{where}: $setElementOrder needs a list that merges, and its order")
    assert isinstance(order, list)

    def mark(item: Any) -> Any:
        return item.get(name) if name and isinstance(item, Mapping) else item

    wanted = [mark(each) for each in order]
    own = [mark(item) for item in patch if not _is_directive(item)]
    at = [wanted.index(each) if each in wanted else -1 for each in own]
    fine = -1 not in at and at == sorted(at)
    _check(fine, f"{where}: the patch has {own}, but $setElementOrder says {wanted}")
    return _ordered(merged, order, before, mark)


def _ordered(
    items: Sequence[Any], first: Sequence[Any], old: Sequence[Any], mark: Callable[[Any], Any]
) -> list[Any]:
    """``items`` in the order of ``first``, the others among them where ``old`` has them before one that it knows."""
    wanted, before = [mark(each) for each in first], [mark(each) for each in old]
    named = sorted(
        (each for each in items if mark(each) in wanted), key=lambda each: wanted.index(mark(each))
    )
    others = [each for each in items if mark(each) not in wanted]
    found: list[Any] = []
    for each in named:
        if mark(each) in before:
            place = before.index(mark(each))
            while others and before.index(mark(others[0])) < place:
                found.append(others.pop(0))
        found.append(each)
    return found + others


def _plain(value: Any) -> Any:
    """A copy of what a patch sets where nothing was, without nulls and directives."""
    if isinstance(value, Mapping):
        return {
            key: _plain(inner)
            for key, inner in value.items()
            if inner is not None and not key.startswith("$")
        }
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_directive(item)]
    return value


def _is_directive(item: object) -> bool:
    """An element that says what to do, and is none itself."""
    return isinstance(item, Mapping) and "$patch" in item


def _check(holds: bool, message: str) -> None:  # noqa: FBT001 - the question comes first
    if not holds:
        raise SpecError(message)
