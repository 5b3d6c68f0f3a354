"""A patch over a pod, as ``kubectl patch --type strategic`` merges it: pure, on plain dicts.

Mappings merge and null removes a key. Lists that Kubernetes keys (containers by name, volume mounts by path …) merge by
that key, all others are replaced. The directives ``$patch: replace|delete|merge``, ``$retainKeys`` and
``$deleteFromPrimitiveList/…`` work; ``$setElementOrder/…`` only orders and is left out.
"""

from collections.abc import Mapping, Sequence
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


def strategic_merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> Object:
    """``patch`` over ``base``; neither is changed. ``SpecError`` for a directive or an element that makes no sense."""
    return _mapping(base, patch, "patch")


def _mapping(base: Mapping[str, Any], patch: Mapping[str, Any], where: str) -> Object:
    how = patch.get("$patch", "merge")
    own = {key: value for key, value in patch.items() if not key.startswith("$")}
    if how == "replace":
        return deepcopy(own)
    if how == "delete":
        return {}
    if how != "merge":
        raise SpecError(f"{where}: $patch is {how!r}; expected replace, delete or merge")
    merged = deepcopy(dict(base))
    _apply_directives(merged, patch, where)
    for key, value in own.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            kept = before if isinstance(before, Mapping) else {}
            result = _mapping(kept, value, f"{where}.{key}")
            if value.get("$patch") == "delete":
                merged.pop(key, None)
            else:
                merged[key] = result
        elif isinstance(value, list):
            merged[key] = _list(key, merged.get(key), value, f"{where}.{key}")
        else:
            merged[key] = value
    return merged


def _apply_directives(merged: Object, patch: Mapping[str, Any], where: str) -> None:
    for name, value in patch.items():
        if not name.startswith("$") or name == "$patch" or name.startswith("$setElementOrder/"):
            continue
        if name == "$retainKeys":
            for key in set(merged) - set(value):
                del merged[key]
        elif name.startswith("$deleteFromPrimitiveList/"):
            key = name.partition("/")[2]
            if isinstance(merged.get(key), list):
                merged[key] = [item for item in merged[key] if item not in value]
        else:
            raise SpecError(f"{where}: {name} is no directive of a strategic merge patch")


def _list(key: str, base: object, patch: Sequence[Any], where: str) -> list[Any]:
    before = list(base) if isinstance(base, list) else []
    if key in _SETS:
        return deepcopy(before) + [item for item in patch if item not in before]
    name = MERGE_KEYS.get(key)
    if name is None or not all(isinstance(item, Mapping) for item in patch):
        return deepcopy(list(patch))
    if any(set(item) == {"$patch"} and item["$patch"] == "replace" for item in patch):
        return deepcopy([item for item in patch if "$patch" not in item])
    merged = deepcopy(before)
    for item in patch:
        if name not in item:
            raise SpecError(
                f"{where}: each element needs {name}, which tells it from the others, found {dict(item)}"
            )
        at = next((i for i, old in enumerate(merged) if old.get(name) == item[name]), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if old.get(name) != item[name]]
        elif at is None:
            merged.append(_mapping({}, item, f"{where}[{item[name]}]"))
        else:
            merged[at] = _mapping(merged[at], item, f"{where}[{item[name]}]")
    return merged
