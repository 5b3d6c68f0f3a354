"""The real trackers, in the process that tells them: what was told is read back from what they wrote."""

import json
import os
import socket
import struct
from collections import Counter

import pytest

from mstar.config import Tracking
from mstar.tracking.process import Telling
from tests.report.making import make_run, make_spec, make_store

pytestmark = pytest.mark.slow
EVERYTHING = Tracking(to=("tensorboard", "wandb", "mlflow"), project="self-evolving")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Where the trackers write: all on this machine."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path


def tell(store, tracking, **more):
    """One life of the process that tells; what it told, and what went wrong."""
    warned: list[str] = []
    telling = Telling(store.url, "mstar", tracking, warned.append)
    telling.look(**more)
    telling.close(None)
    return telling, warned


def events(store):
    """Scalars in TensorBoard's files as TensorBoard reads them, as (tag, step)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(store.root / "runs/mstar/tensorboard"), size_guidance={"scalars": 0})  # fmt: skip
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_a_run_told_half_way_and_to_its_end_is_one_run_with_each_point_once(places):
    store = make_store(places)
    make_run(store, places, make_spec(), until=9)
    half, warned = tell(store, EVERYTHING)
    assert warned == []
    make_run(store, places, make_spec())
    rest, warned = tell(store, EVERYTHING)
    assert warned == []
    assert len(set(half.told.values())) == len(set(rest.told.values())) == 1
    points = half.told["mlflow"] + rest.told["mlflow"]

    found = events(store)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 16))
    assert [step for step, _ in found["validation/greedy_accuracy"]] == [0, 1, 2]

    from mlflow.tracking import MlflowClient

    client = MlflowClient(str(places / "mlruns"))
    (experiment,) = client.search_experiments(filter_string="name = 'self-evolving'")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == list(range(1, 16))
    assert run.data.params["evolve.iterations"] == "2"
    assert run.data.tags["mstar.run"] == "mstar"

    rows = [row for folder in sorted(places.glob("wandb/offline-run-*")) for row in wandb_rows(folder)]  # fmt: skip
    assert len(rows) == points
    losses = Counter(row["train/step"] for row in rows if "train/loss" in row)
    assert losses == Counter(range(1, 16))
    assert len({folder.name.rpartition("-")[2] for folder in places.glob("wandb/offline-run-*")}) == 1  # fmt: skip


def wandb_rows(folder):
    """The history in an offline run's file."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }


def records(data):
    """The records of a LevelDB log: blocks of 32 KiB, in which a record may be cut into pieces."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in {1, 4}:  # whole, or the last piece
            yield whole
            whole = b""


def test_a_server_that_is_not_there_is_said_once_and_told_later(places, monkeypatch):
    store = make_store(places)
    make_run(store, places, make_spec(), until=5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        both = Tracking(to=("mlflow", "tensorboard"))
        failed, warned = tell(store, both)
    assert len(warned) == 1
    assert "tracker mlflow" in warned[0]
    assert "the run goes on" in warned[0]
    assert failed.told["mlflow"] == 0
    assert failed.told["tensorboard"] > 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(places / "mlruns"))
    later, warned = tell(store, both)
    assert warned == []
    assert (later.told["mlflow"], later.told["tensorboard"]) == (failed.told["tensorboard"], 0)


def test_a_folder_that_mlflow_does_not_write_to_unasked_is_said_in_one_line(places, monkeypatch):
    store = make_store(places)
    make_run(store, places, make_spec(), until=5)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{places / 'mlruns'}")
    _, warned = tell(store, Tracking(to=("mlflow",)))
    assert len(warned) == 1
    assert "only where MLFLOW_ALLOW_FILE_STORE=true is set" in warned[0]
    assert "Exception" not in warned[0]
