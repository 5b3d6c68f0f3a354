"""SIGKILL to the whole command at several moments: nothing committed is lost or repeated, nothing is left running."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder, read_recipe
from mstar.history import load_history
from mstar.storage.folder import FolderStore
from tests.signals import heeding_interrupts

pytestmark = pytest.mark.slow
SECONDS = 600
NAME = "mstar"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A run of eleven short steps, one of each kind that needs no PRM."""
    write_dataset(tmp_path / "data", sizes={"train": 24, "validation": 4, "test": 4})
    raw = read_recipe() | {"data": {"path": "data"}, "model": str(base_folder()), "store": "store"}
    raw["warm_up"] |= {"queries": 16}
    raw["prm"] = None
    raw["evolve"] |= {"iterations": 1, "select": {"rule": "all"}, "exploration": None}
    raw["evaluation"] |= {"queries": 4, "samples": 4, "pass_at": [1, 4]}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def start(spec: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "mstarctl.main", "run", "-f", str(spec), "--local"]
    with (spec.parent / "errors.txt").open("ab") as log:
        return subprocess.Popen(
            [*command, "-o", "json"],
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=heeding_interrupts,  # noqa: PLW1509 - a test has no other threads
        )


def until(true: Callable[[], bool], process: "subprocess.Popen[bytes]", what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert process.poll() is None, f"the run ended before {what}"
        assert time.monotonic() < deadline, f"no {what} in {SECONDS} s"
        time.sleep(0.005)


def ps(*arguments: str) -> str:
    found = subprocess.run(["/bin/ps", *arguments], capture_output=True, text=True, check=False)
    return found.stdout


def children(pid: int) -> set[int]:
    pairs = (line.split() for line in ps("-A", "-o", "pid=,ppid=").splitlines())
    return {int(child) for child, parent in pairs if int(parent) == pid}


def lives(pid: int) -> bool:
    """Whether the process runs; one that has ended and is not yet collected does not."""
    return ps("-o", "stat=", "-p", str(pid)).strip()[:1] not in {"", "Z"}


def kill_with_worker(process: "subprocess.Popen[bytes]") -> None:
    """Kill the command, and see that the worker it had goes by itself."""
    workers = children(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + SECONDS
    while any(map(lives, workers)):
        assert time.monotonic() < deadline, "the worker outlived its controller"
        time.sleep(0.05)


def committed(store: FolderStore) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("steps") if key.endswith("manifest.json")}


def test_a_run_killed_again_and_again_commits_every_step_once_and_leaves_no_process(spec: Path):
    store = FolderStore(spec.parent / "store")

    def reached(count: int, *, running: str = "") -> Callable[[], bool]:
        def look() -> bool:
            found = len(load_history(store, NAME))
            if found != count or not running:
                return found >= count  # who looks late is past the moment, and need not wait for it
            key = f"runs/{NAME}/status.json"
            return store.size(key) is not None and json.loads(store.get(key))["step"] == running

        return look

    before: dict[str, bytes] = {}
    moments = [
        reached(0, running="base/test"),  # while the worker starts
        reached(2),  # as an entry is written
        reached(6, running="iter-01/score"),  # in the middle of a step
    ]
    for number, moment in enumerate(moments):
        process = start(spec)
        until(moment, process, f"moment {number}")
        kill_with_worker(process)
        now = committed(store)
        assert before.items() <= now.items()
        before = now
    process = start(spec)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (spec.parent / "errors.txt").read_text()
    after = committed(store)
    assert before.items() <= after.items()
    entries = load_history(store, NAME)
    assert json.loads(out)["finished_steps"] == len(entries) == 11
    assert len({entry.ref.id for entry in entries}) == 11
    assert {f"steps/{entry.ref.id}/manifest.json" for entry in entries} == {
        key for key in after if "/shards/" not in key
    }
    # No step was started again once it was in the history: each line of progress is there once.
    lines = (spec.parent / "errors.txt").read_text().splitlines()
    finished = [json.loads(line)["step"] for line in lines if '"index"' in line]
    assert all(finished.count(name) <= 1 for name in finished)


def test_an_interrupted_command_stops_its_worker_and_says_how_to_go_on(spec: Path):
    store = FolderStore(spec.parent / "store")
    process = start(spec)
    key = f"runs/{NAME}/status.json"
    until(lambda: store.size(key) is not None, process, "first status")
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    said = (spec.parent / "errors.txt").read_text()
    assert f"mstarctl resume {NAME}" in said
    assert "Traceback" not in said
    assert not any(map(lives, workers))
    assert json.loads(store.get(key))["phase"] == "stopped"


def test_a_second_command_on_a_running_run_is_refused_and_a_cancel_ends_the_first(spec: Path):
    raw = yaml.safe_load(spec.read_text())
    raw["evaluation"]["samples"] = 4000  # the first step is at work until it is stopped
    spec.write_text(yaml.safe_dump(raw))
    store = FolderStore(spec.parent / "store")
    first = start(spec)
    until(lambda: store.size(f"runs/{NAME}/status.json") is not None, first, "first status")

    def mstarctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "mstarctl.main", *arguments, "--store", store.url]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)

    second = mstarctl("resume", NAME)
    assert second.returncode == 8
    assert f"process {first.pid} on" in second.stderr
    assert "Traceback" not in second.stderr
    asked = mstarctl("cancel", NAME, "-o", "json")
    assert json.loads(asked.stdout) == {"run": NAME, "cancelled": True}
    first.communicate(timeout=SECONDS)
    assert first.returncode == 10
    assert json.loads(mstarctl("status", NAME, "-o", "json").stdout)["status"]["exit_code"] == 10
