"""What the tests on a real cluster share: one small run in one namespace and one bucket, driven by the command line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder, read_recipe
from mstar.history import Entry, load_history
from mstar.storage.open import open_store
from mstar.storage.store import Store
from tests.cluster.running import Cluster

CHART = Path(__file__).parents[2] / "helm" / "mstar"
SECONDS = 600
UID = 54321  # of no meaning, as clusters that choose the user do
SMALL = {"requests": {"cpu": "50m", "memory": "200Mi"}, "limits": {"memory": "3Gi"}}


@dataclass(kw_only=True)
class Lab:
    """A namespace with the chart in it, a bucket, and the command line to use both."""

    cluster: Cluster
    namespace: str
    bucket: str
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def install(self) -> None:
        """The bucket's keys, and the chart."""
        self.secret("mstar-s3", self.cluster.access_key, self.cluster.secret_key)
        self.cluster.helm(
            "install", "mstar", str(CHART), "--namespace", self.namespace, "--wait",
            "--set", f"s3.endpoint={self.cluster.s3_pod_endpoint}", "--set", "s3.region=us-east-1",
            "--set", "defaults.grace_seconds=20",
        )  # fmt: skip

    def secret(self, name: str, access_key: str, secret_key: str) -> None:
        data = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": data,
        }
        self.cluster.apply(self.namespace, [body])

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/runs"

    @property
    def store(self) -> Store:
        os.environ.update(self.environment())
        return open_store(self.url)

    def environment(self) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "AWS_ENDPOINT_URL": self.cluster.s3_endpoint,
            "AWS_ACCESS_KEY_ID": self.cluster.access_key,
            "AWS_SECRET_ACCESS_KEY": self.cluster.secret_key,
            "AWS_REGION": "us-east-1",
        } | self.env

    def mstarctl(
        self, *arguments: str, code: int | None = 0, seconds: float = SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command; ``code`` is the exit code it must have (None: any)."""
        found = subprocess.run(
            [sys.executable, "-m", "mstarctl.main", *arguments],
            env=os.environ | self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert "Traceback" not in found.stderr, found.stderr
        if code is not None:
            assert found.returncode == code, (arguments, found.stdout, found.stderr)
        return found

    def spec(self, name: str, *, whole: bool = False, **cluster: Any) -> Path:
        """A spec file: five short steps, or every stage of the recipe when ``whole``.

        A seed of its own keeps a run from adopting what another test's has committed.
        """
        data = self.folder / "data"
        if not data.is_dir():
            write_dataset(data, sizes={"train": 24, "validation": 4, "test": 4})
        raw = read_recipe() | {
            "name": name,
            "seed": sum(map(ord, name)),
            "data": {"path": str(data)},
            "model": str(base_folder()),
            "store": self.url,
        }
        rollout = {"samples": 4, "max_new_tokens": 72}
        raw["evolve"] |= {"iterations": 1, "interval": "50%"}
        raw["evolve"]["rollout"] = raw["evolve"].get("rollout", {}) | rollout
        raw["evaluation"] |= {"queries": 4, "samples": 4, "pass_at": [1, 4]}
        raw["execution"] = {"threads": 1}
        if whole:
            raw["warm_up"] |= {"queries": 16}
            raw["prm"] |= {"queries": 12, "pairs": 16, "completions": 2}
            raw["evolve"]["select"] = {"rule": "top_k", "k": 2}
        else:
            raw |= {"warm_up": None, "prm": None}
            raw["data"]["test"] = None
            raw["evolve"] |= {"select": {"rule": "all"}, "exploration": None}
        user = {"spec": {"securityContext": {"runAsUser": UID, "runAsGroup": UID}}}
        pod = {"resources": SMALL, "patch": user}
        stages = dict.fromkeys(("generate", "score", "train", "evaluate"), pod)
        raw["cluster"] = {
            "namespace": self.namespace,
            "stages": stages,
            "controller": {"patch": user},
        }
        raw["cluster"] = merged(raw["cluster"], cluster)
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(raw), encoding="utf-8")
        return path

    def status(self, name: str) -> dict[str, Any]:
        found = self.mstarctl("status", name, "--store", self.url, "-o", "json")
        body: dict[str, Any] = json.loads(found.stdout)
        return body

    def until(
        self, true: Callable[[dict[str, Any]], bool], name: str, seconds: float = SECONDS
    ) -> dict[str, Any]:
        """Ask ``status`` until it is as wanted; the status then."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.status(name)
            if true(found):
                return found
            assert time.monotonic() < deadline, f"not within {seconds} s; last seen: {found}"
            time.sleep(1)

    def history(self, name: str) -> list[Entry]:
        return load_history(self.store, name)

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments)

    def objects(
        self, kind: str, selector: str = "app.kubernetes.io/name=mstar"
    ) -> list[dict[str, Any]]:
        found = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def names(self, kind: str, selector: str) -> list[str]:
        return [item["metadata"]["name"] for item in self.objects(kind, selector)]

    def running(self, name: str, component: str) -> list[str]:
        """The names of a run's pods that are at work."""
        chosen = f"mstar.dev/run={name},app.kubernetes.io/component={component}"
        return [
            pod["metadata"]["name"]
            for pod in self.objects("pods", chosen)
            if pod["status"].get("phase") == "Running"
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def until_running(self, name: str, component: str, count: int = 1) -> list[str]:
        """Wait for a run's pods of one kind to be at work; their names."""
        deadline = time.monotonic() + SECONDS
        while len(found := self.running(name, component)) < count:
            assert time.monotonic() < deadline, self.status(name)
            time.sleep(0.3)
        return found

    def kill(self, pod: str) -> None:
        """End a pod as a lost node would: at once, without a word."""
        self.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")

    def nothing_left(self, name: str) -> None:
        """No Job and no pod of the run is there."""
        chosen = f"mstar.dev/run={name}"
        assert self.names("jobs", chosen) == []
        assert self.names("pods", chosen) == []

    def manifests(self) -> dict[str, bytes]:
        """Every committed step's manifest by key."""
        store = self.store
        return {key: store.get(key) for key in store.list("steps") if key.endswith("manifest.json")}


def merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Two nested mappings, the second over the first."""
    found = dict(base)
    for key, value in top.items():
        old = base.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        found[key] = merged(old, value) if both and isinstance(old, dict) else value
    return found


def committed_once(lab: Lab, name: str, steps: int) -> None:
    """Each step of the run is in its history once, committed, and no attempt that lost has left its parts."""
    entries = lab.history(name)
    assert [entry.index for entry in entries] == list(range(steps))
    assert len({entry.ref.id for entry in entries}) == steps
    store = lab.store
    for entry in entries:
        manifest = json.loads(store.get(f"steps/{entry.ref.id}/manifest.json"))
        named = {part["key"] for part in manifest["parts"]}
        there = {
            key
            for key in store.list(f"steps/{entry.ref.id}")
            if "/attempt-" in key and "/shards/" not in key
        }
        assert there <= named, there - named
