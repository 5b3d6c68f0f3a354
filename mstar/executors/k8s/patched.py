"""A run's own patch over a pod that we render, and what of the pod a patch has to leave as it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from mstar.errors import SpecError
from mstar.executors.k8s.names import CONTAINER, STEP
from mstar.executors.k8s.patch import Object, strategic_merge

FREE = {"MSTAR_LOG"}
"""Variables of ours that a patch may set: how logs look is nobody's business but the reader's."""


def patched(template: Object, patch: Mapping[str, Any], key: str) -> Object:
    """``template`` with ``patch`` over it.

    Raises ``SpecError`` that begins with ``key`` for a patch that makes no sense, and for one after which the run
    would no longer find its pods, or the pods what they are to do.
    """
    if not patch:
        return template
    try:
        merged = strategic_merge(template, patch)
    except SpecError as error:
        raise SpecError(f"{key}: {error}") from None
    if mistakes := list(_mistakes(template, merged)):
        raise SpecError("\n".join(f"{key}: {mistake}" for mistake in mistakes))
    return merged


def _mistakes(ours: Object, merged: Object) -> Iterator[str]:
    meta, spec = merged.get("metadata"), merged.get("spec")
    if not isinstance(meta, dict) or not isinstance(spec, dict):
        yield "metadata and spec of a pod are groups of keys, and both must stay"
        return
    yield from _kept(ours["metadata"]["labels"], meta.get("labels"), "metadata.labels", _FINDS)
    step = {k: v for k, v in ours["metadata"].get("annotations", {}).items() if k == STEP}
    yield from _kept(step, meta.get("annotations"), "metadata.annotations", _FINDS)
    fixed = {k: ours["spec"][k] for k in ("restartPolicy", "subdomain") if k in ours["spec"]}
    yield from _kept(fixed, spec, "spec", "a Job of ours works with no other")
    containers = spec.get("containers")
    if not isinstance(containers, list) or not all(isinstance(c, dict) for c in containers):
        yield "spec.containers is a list of groups of keys, each with a name"
        return
    found = next((each for each in containers if each.get("name") == CONTAINER), None)
    if found is None:
        yield f"it takes away the container {CONTAINER}, which does the step's work"
        return
    yield from _container(ours["spec"]["containers"][0], found)


_FINDS = "the run finds its pods by it"


def _container(ours: Object, found: Object) -> Iterator[str]:
    where = f"spec.containers[{CONTAINER}]"
    yield from _kept({"args": ours["args"]}, found, where, "it says what the pod is to do")
    for name, mark, why in (
        ("env", "name", "the pod reads it"),
        ("volumeMounts", "mountPath", "the root is read-only, and this is written to"),
    ):
        items = found.get(name)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            yield f"{where}.{name} is a list of groups of keys"
            continue
        there = {item.get(mark): item for item in items}
        for item in ours[name]:
            other = there.get(item[mark])
            same = other is not None if name == "volumeMounts" else other == item
            if not same and item[mark] not in FREE:
                yield f"{where}.{name} must keep {item[mark]} as it is: {why}"


def _kept(wanted: Mapping[str, Any], found: object, where: str, why: str) -> Iterator[str]:
    there = found if isinstance(found, dict) else {}
    for key, value in wanted.items():
        if there.get(key) != value:
            yield f"{where}.{key} must stay {value!r}: {why}"
