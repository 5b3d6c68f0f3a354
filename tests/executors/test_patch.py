"""A patch over a pod is merged as ``kubectl patch --type strategic`` merges it."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mstar.errors import SpecError
from mstar.executors.k8s.patch import strategic_merge

POD: dict[str, Any] = {
    "metadata": {
        "name": "pod",
        "labels": {"app": "mstar", "run": "r"},
        "annotations": {"step": "a"},
        "finalizers": ["a/b", "c/d"],
    },
    "spec": {
        "restartPolicy": "Never",
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "containers": [
            {
                "name": "stage",
                "image": "localhost/mstar-generator:1",
                "args": ["pod", "--store", "s3://b"],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"name": "m", "containerPort": 9400, "protocol": "TCP"}],
                "resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}},
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "tmp", "mountPath": "/files"},
                ],
            }
        ],
        "initContainers": [{"name": "first", "image": "i"}, {"name": "second", "image": "i"}],
        "imagePullSecrets": [{"name": "one"}],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "topologySpreadConstraints": [
            {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
        ],
    },
}


def stage(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "stage", **fields}]}}


CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a node selector is added to": {"spec": {"nodeSelector": {"zone": "b"}}},
    "null takes a key away": {"spec": {"nodeSelector": {"gpu": None}, "restartPolicy": None}},
    "null takes a mapping away": {"spec": {"nodeSelector": None, "tolerations": None}},
    "null for what is not there": {"spec": {"affinity": None, "dnsConfig": {"options": None}}},
    "tolerations are replaced": {"spec": {"tolerations": [{"key": "x", "effect": "NoSchedule"}]}},
    "arguments are replaced": stage(args=["other"]),
    "an image is replaced": stage(image="registry:5000/mine:2"),
    "a variable is changed and one added": stage(
        env=[{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]
    ),
    "the added come before those that are there": stage(env=[{"name": "Z", "value": "0"}]),
    "between two that are there": stage(
        env=[{"name": "A", "value": "9"}, {"name": "N", "value": "n"}]
    ),
    "a variable is taken away": stage(env=[{"name": "A", "$patch": "delete"}]),
    "one taken away and one added": stage(
        env=[{"name": "A", "$patch": "delete"}, {"name": "C", "value": "1"}]
    ),
    "taken away though it is not there": stage(env=[{"name": "X", "$patch": "delete"}]),
    "all variables are replaced": stage(env=[{"$patch": "replace"}, {"name": "C", "value": "4"}]),
    "a variable from a field": stage(
        env=[
            {"name": "A", "value": None, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        ]
    ),
    "a sidecar": {"spec": {"containers": [{"name": "proxy", "image": "p"}]}},
    "a sidecar behind": {
        "spec": {"containers": [{"name": "stage"}, {"name": "proxy", "image": "p"}]}
    },
    "a container is replaced": stage(**{"$patch": "replace", "image": "x"}),
    "a container is taken away": {"spec": {"containers": [{"name": "stage", "$patch": "delete"}]}},
    "init containers keep their order": {
        "spec": {
            "initContainers": [
                {"name": "second", "image": "j"},
                {"name": "zeroth", "image": "i"},
                {"name": "first", "args": ["a"]},
            ]
        }
    },
    "a volume is added with its mount": {
        "spec": {
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}],
            "containers": [
                {"name": "stage", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
            ],
        }
    },
    "a volume becomes another kind": {
        "spec": {
            "volumes": [
                {"name": "scratch", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}
            ]
        }
    },
    "two kinds of volume in one": {
        "spec": {"volumes": [{"name": "tmp", "emptyDir": None, "hostPath": {"path": "/x"}}]}
    },
    "a mount by its path": stage(volumeMounts=[{"mountPath": "/scratch", "name": "tmp"}]),
    "a port by its number": stage(
        ports=[{"containerPort": 9400, "name": "n"}, {"containerPort": 1}]
    ),
    "resources are merged": stage(
        resources={"limits": {"memory": "2Gi"}, "requests": {"cpu": "1"}}
    ),
    "resources are replaced": stage(resources={"$patch": "replace", "limits": {"cpu": "1"}}),
    "resources are taken away": stage(resources={"$patch": "delete"}),
    "capabilities are replaced": stage(securityContext={"capabilities": {"drop": ["NET_RAW"]}}),
    "only some keys are kept": {"spec": {"$retainKeys": ["containers", "volumes"]}},
    "scheduling": {"spec": {"runtimeClassName": "nvidia", "schedulerName": "volcano"}},
    "pull secrets merge": {"spec": {"imagePullSecrets": [{"name": "two"}, {"name": "one"}]}},
    "finalizers merge as a set": {"metadata": {"finalizers": ["e/f", "a/b"]}},
    "a finalizer is taken away": {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}},
    "labels": {"metadata": {"labels": {"app": "mine", "run": None, "new": "x"}}},
    "spread constraints by key": {
        "spec": {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 2}]}
    },
    "a spread constraint is added": {
        "spec": {"topologySpreadConstraints": [{"topologyKey": "host", "maxSkew": 2}]}
    },
    "lists that were not there": {
        "spec": {
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
            "schedulingGates": [{"name": "gate"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}],
        }
    },
    "an affinity": {
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
                        ]
                    }
                }
            }
        }
    },
    "an order of its own": {
        "spec": {
            "$setElementOrder/containers": [{"name": "proxy"}, {"name": "stage"}],
            "containers": [{"name": "proxy", "image": "p"}],
        }
    },
    "the order of all variables": stage(
        **{
            "$setElementOrder/env": [{"name": "C"}, {"name": "B"}, {"name": "A"}],
            "env": [{"name": "C", "value": "3"}],
        }
    ),
}


@pytest.fixture(scope="session")
def kubectl() -> str:
    found = shutil.which("kubectl")
    if not found:
        pytest.skip("no kubectl on the PATH to compare with")
    return found


def merged_by(kubectl: str, file: Any, patch: dict[str, Any]) -> Any:
    """What kubectl makes of it: the pod, or None when it refuses."""
    command = [kubectl, "patch", "--local", "--type=strategic", f"--filename={file}"]
    done = subprocess.run(
        [*command, f"--patch={json.dumps(patch)}", "--output=json"],
        capture_output=True, text=True, check=False, timeout=60, env={"HOME": "/nonexistent"},
    )  # fmt: skip
    return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("patch") / "pod.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **POD}))
    return path


def ours(patch: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod"} | strategic_merge(POD, patch)


@pytest.mark.parametrize("patch", CASES.values(), ids=CASES)
def test_a_patch_merges_as_kubectl_merges_it(kubectl, file, patch):
    assert ours(patch) == merged_by(kubectl, file, patch)


NAMES = st.sampled_from(["stage", "A", "B", "C", "scratch", "tmp", "first", "second", "new"])
SIZES = st.sampled_from(["1", "2Gi", "3"])


def element(key: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An element of a keyed list: with some fields, or to be taken away."""
    named = st.fixed_dictionaries({key: NAMES}, optional=fields)
    return named | named.map(lambda item: {key: item[key], "$patch": "delete"})


def elements(key: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(element(key, **fields), max_size=4, unique_by=lambda item: item[key])


RESOURCES = st.dictionaries(st.sampled_from(["memory", "cpu"]), SIZES | st.none(), max_size=2)
CONTAINER = {
    "image": SIZES,
    "args": st.lists(SIZES, max_size=2) | st.none(),
    "env": elements("name", value=SIZES | st.none()),
    "volumeMounts": elements("mountPath", name=NAMES),
    "resources": st.fixed_dictionaries({}, optional={"limits": RESOURCES, "requests": RESOURCES}),
}
PATCHES = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "labels": st.dictionaries(NAMES, SIZES | st.none(), max_size=2),
                "finalizers": st.lists(
                    st.sampled_from(["a/b", "e/f"]), max_size=2, unique=True
                ),
                "$deleteFromPrimitiveList/finalizers": st.just(["c/d"]),
            },
        ),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "containers": elements("name", **CONTAINER),
                "initContainers": elements("name", **CONTAINER),
                "volumes": elements("name", emptyDir=RESOURCES),
                "imagePullSecrets": elements("name"),
                "tolerations": st.none() | st.just([{"key": "x"}]),
                "nodeSelector": st.dictionaries(NAMES, SIZES | st.none(), max_size=2),
                "schedulerName": SIZES | st.none(),
            },
        ),
    },
)  # fmt: skip


def tidied(value: Any) -> Any:
    """Without nulls, which say nothing, and without directives that kubectl leaves inside what it adds."""
    if isinstance(value, dict):
        return {key: tidied(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [tidied(each) for each in value if not (isinstance(each, dict) and "$patch" in each)]
    return value


@settings(max_examples=4, phases=[Phase.generate])
@given(st.lists(PATCHES, min_size=12, max_size=12))
def test_any_patch_merges_as_kubectl_merges_it(kubectl, file, patches):
    with ThreadPoolExecutor(4) as pool:
        theirs = list(pool.map(lambda patch: merged_by(kubectl, file, patch), patches))
    for patch, expected in zip(patches, theirs, strict=True):
        assert ours(patch) == tidied(expected), patch


@given(PATCHES)
def test_a_merge_changes_neither_side_and_gives_the_same_again(patch):
    before, said = deepcopy(POD), deepcopy(patch)
    merged = strategic_merge(POD, patch)
    assert (POD, patch) == (before, said)
    assert merged == strategic_merge(POD, patch)
    merged["spec"]["containers"].append("x")
    merged["metadata"].setdefault("labels", {})["x"] = "y"
    assert (POD, patch) == (before, said)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"spec": {"$patch": "merge"}}, "not replace or delete"),
        (stage(**{"$patch": "merge"}), "not replace or delete"),
        ({"spec": {"containers": [{"image": "x"}]}}, "each element needs name"),
        ({"spec": {"containers": [{"$patch": "delete"}]}}, "each element needs name"),
        ({"spec": {"containers": ["stage"]}}, "expected mappings, found 'stage'"),
        ({"spec": {"$retainKeys": ["containers"], "hostname": "h"}}, "does not name hostname"),
        ({"spec": {"$retainKeys": "containers"}}, "needs a list of keys"),
        ({"spec": {"$replace": True}}, r"\$replace is no directive"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "a/b"}}, "needs a list"),
        (
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "stage"}],
                    "containers": [{"name": "proxy", "image": "p"}],
                }
            },
            "but .setElementOrder says",
        ),
    ],
)
def test_what_kubectl_refuses_is_a_mistake_in_the_spec_and_says_where(patch, words, kubectl, file):
    with pytest.raises(SpecError, match=words):
        strategic_merge(POD, patch)
    odd = {"$replace", "$deleteFromPrimitiveList/finalizers"}  # kubectl takes these for fields
    if not odd & {key for part in patch.values() for key in part}:
        assert merged_by(kubectl, file, patch) is None


def test_what_is_to_replace_nothing_is_taken():
    patch = {"spec": {"securityContext": {"$patch": "replace", "fsGroup": 1}}}
    assert strategic_merge(POD, patch)["spec"]["securityContext"] == {"fsGroup": 1}
