"""The command in this process, a fake cluster whose pods run, and an S3 server."""

import json
import time
import uuid

import pytest
import yaml
from mstarctl import cluster as command
from mstarctl import following

from mstar.controller import serve
from mstar.demo.dataset import write_dataset
from mstar.errors import MstarError
from mstar.executors.k8s import watch
from mstar.executors.k8s.api import Api
from mstar.storage.s3 import S3Store
from tests import fake_api
from tests.controller.lives import SHORT
from tests.executors.making import committing_pods
from tests.fake_kubelet import Ended, Kubelet, last_word
from tests.tiny import write_tensors


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A namespace with what the chart installs, named by KUBECONFIG; nothing there waits for long."""
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(serve, "PAUSE_SECONDS", 0.02)
    for polling in (command, following):
        monkeypatch.setattr(polling, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(command, "Api", impatient(Api))
    monkeypatch.setenv("MSTAR_METRICS_PORT", "0")
    with fake_api.running() as found:
        install(found)
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig(tmp_path)))
        yield found


def impatient(real):
    """The API, with less patience, of which only its own pauses take any: a busy machine uses none of it up."""

    def make(connection, namespace, patience=0.3):
        paused = [0.0]

        def sleep(seconds):
            paused.append(seconds)
            time.sleep(min(seconds, 0.02))

        return real(
            connection,
            namespace,
            patience=min(patience, 0.3),
            sleep=sleep,
            clock=lambda: sum(paused),
        )

    return make


def install(found):
    """What the chart makes."""
    for kind, name in (
        ("ServiceAccount", "mstar-stage"),
        ("ServiceAccount", "mstar-controller"),
        ("Secret", "mstar-s3"),
    ):
        found.put({"kind": kind, "metadata": {"name": name}})


@pytest.fixture
def bucket(s3_environment, s3_client):
    """A prefix of its own in the bucket."""
    return f"s3://runs/{uuid.uuid4().hex}"


@pytest.fixture
def store(bucket):
    return S3Store(bucket)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Data, and a folder that looks like a model."""
    root = tmp_path_factory.mktemp("inputs")
    write_dataset(root / "data", sizes={"train": 8, "validation": 4, "test": 4})
    (root / "model").mkdir()
    for name in ("config.json", "processor_config.json"):
        (root / "model" / name).write_text("{}")
    write_tensors(root / "model" / "model.safetensors", {})
    return root


@pytest.fixture
def spec(tmp_path, inputs, bucket):
    """Write a spec of five steps; keys given are merged over it. The file."""

    def write(**changes):
        raw = {
            "name": "small",
            "store": bucket,
            "data": {"path": str(inputs / "data"), "test": None},
            "model": str(inputs / "model"),
            "evaluation": {"samples": 2, "pass_at": [1, 2]},
        }
        raw |= {key: SHORT[key] for key in ("warm_up", "prm", "evolve", "execution")}
        file = tmp_path / "spec.yaml"
        file.write_text(yaml.safe_dump(raw | changes))
        return file

    return write


def controlling(stages):
    """Pods of which the controller's really is one, in this process."""

    def work(running):
        if running.args[0] != "controller":
            return stages(running)
        _, name, _, url = running.args
        try:
            serve._serve(url, name, running.stopping)
        except MstarError as error:
            text = last_word(str(error), error.exit_code, retriable=error.retriable)
            return Ended(code=error.exit_code, message=text)
        except KeyboardInterrupt:
            return Ended(code=14)
        return Ended()

    return work


@pytest.fixture
def kubelet(cluster, store):
    """Plays controllers and stages; ``kubelet.stages`` may be replaced."""
    found = Kubelet(cluster, controlling(committing_pods(store)))
    yield found
    for job in cluster.find("Job"):
        cluster.delete(job, "Background")
    found.join()


@pytest.fixture
def records(store):
    """A JSON record of the store."""
    return lambda key: json.loads(store.get(key))
