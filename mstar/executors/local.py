"""Runs stages on this machine: one worker process that imports the heavy libraries once and takes task after task.

A worker that dies takes its attempt with it and nothing else; the next attempt gets a new one. The worker ends when
this process does, however it ends, because it then reads the end of its standard input.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from mstar.errors import StorageError, WorkerLost
from mstar.executors.base import ABSENT, Found, Job, Observation, State

STOP_SECONDS = 5.0
LOG_BYTES = 1_000_000


class LocalExecutor:
    """One attempt at a time in one worker process."""

    overlaps = False

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: dict[str, Observation] = {}
        self._logs: dict[str, Path] = {}
        self._current: str | None = None
        self._submitted = 0
        self._worker: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def find(self, index: int, identity: str) -> Found | None:
        """None: attempts here end with the process that asked for them."""
        return None

    def submit(self, job: Job) -> str:
        """Hand a job to the worker, starting one if there is none. The job before it must have ended."""
        name = f"{job.run}-{job.index:04d}-{job.attempt}"
        with self._changed:
            if name in self._seen:
                return name
            if self._current and self._seen.get(self._current, ABSENT).state is State.RUNNING:
                raise RuntimeError(
                    f"{self._current} still runs; one worker runs one attempt at a time"
                )
            self._seen[name] = Observation(state=State.RUNNING)
            self._current = name
        worker = self._ensure_worker()
        self._submitted += 1
        log = self._scratch() / f"{self._submitted:05d}.log"
        self._logs[name] = log
        request = {
            "store": job.store,
            "task": job.task.model_dump(mode="json"),
            "execution": job.execution.model_dump(mode="json"),
            "attempt": job.attempt,
        }
        line = json.dumps({"job": name, "request": request, "log": str(log)})
        assert worker.stdin is not None
        try:
            worker.stdin.write(line + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            self._lost(name, worker.wait())
        return name

    def observe(self, name: str) -> Observation:
        with self._changed:
            return self._seen.get(name, ABSENT)

    def wait(self, name: str, seconds: float) -> None:
        with self._changed:
            before = self._seen.get(name, ABSENT)
            if before.state is State.RUNNING:
                self._changed.wait_for(
                    lambda: self._seen.get(name, ABSENT) != before, timeout=seconds
                )

    def delete(self, name: str) -> None:
        with self._changed:
            running = self._seen.get(name, ABSENT).state is State.RUNNING
        if running:
            self._stop_worker()
        with self._changed:
            self._seen.pop(name, None)
            self._logs.pop(name, None)

    def retire(self, name: str) -> None:
        self.delete(name)

    def log(self, name: str) -> str:
        path = self._logs.get(name)
        if path is None or not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            return file.read().decode(errors="replace")

    def close(self) -> None:
        self._stop_worker()
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    def _scratch(self) -> Path:
        if self._folder is None:
            try:
                self._folder = tempfile.TemporaryDirectory(prefix="mstar-logs-")
            except OSError as error:
                raise StorageError(
                    f"no folder for logs can be made ({error}); set TMPDIR"
                ) from None
        return Path(self._folder.name)

    def _ensure_worker(self) -> "subprocess.Popen[str]":
        if self._worker and self._worker.poll() is None:
            return self._worker
        self._stop_worker()
        # A session of its own: Ctrl-C reaches the controller, which then stops the worker in order.
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "mstar.stages.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=self._listen, args=(self._worker,), daemon=True).start()
        return self._worker

    def _listen(self, worker: "subprocess.Popen[str]") -> None:
        assert worker.stdout is not None
        stream: IO[str] = worker.stdout
        for line in stream:
            if line.endswith("\n"):  # a worker that is killed may leave half a line
                self._heard(json.loads(line))
        code = worker.wait()
        with self._changed:
            name = self._current
            lost = (
                worker is self._worker
                and name is not None
                and self._seen.get(name, ABSENT).state is State.RUNNING
            )
        if lost and name is not None:
            self._lost(name, code)

    def _heard(self, event: dict[str, Any]) -> None:
        name = event.pop("job")
        with self._changed:
            if name in self._seen:
                self._seen[name] = Observation(state=State(event.pop("state")), **event)
                self._changed.notify_all()

    def _lost(self, name: str, code: int) -> None:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        hint = (
            "; SIGKILL without a cause here usually means that memory ran out"
            if code == -signal.SIGKILL
            else ""
        )
        with self._changed:
            self._seen[name] = Observation(
                state=State.FAILED,
                message=f"the worker process was {how}{hint}"
                if code < 0
                else f"the worker process {how}",
                exit_code=WorkerLost.exit_code,
                retriable=True,
            )
            self._changed.notify_all()

    def _stop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if worker.poll() is None:
            worker.terminate()
            try:
                worker.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:  # unsent bytes to a worker that is gone
                    continue
