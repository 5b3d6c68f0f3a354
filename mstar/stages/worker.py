"""A process that runs one task after another: jobs come as JSON lines on standard input, events go out the same way.

Starting Python with torch takes seconds; doing that once, not once a step, is what makes short steps worth having.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mstar.errors import MstarError
from mstar.stages.context import Tell
from mstar.stages.run import parse_request, run_request

log = logging.getLogger("mstar.worker")

TELL_SECONDS = 0.2
"""Progress is told at most so often; the last word always."""


def main() -> None:
    """Serve jobs until standard input ends; then stop at once, in the middle of a task if need be."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Whatever a library prints must not be taken for an event.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    jobs: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    while True:
        serve(json.loads(jobs.get()), send, time.monotonic)


def serve(
    job: dict[str, Any], send: Callable[[dict[str, Any]], None], clock: Callable[[], float]
) -> None:
    """Run one job, with its log in its own file, and send what becomes of it."""
    name = job["job"]
    _log_to(Path(job["log"]))
    tell = throttled(lambda d, t, u: send(_progress(name, d, t, u)), clock)
    try:
        request = parse_request(job["request"], name)
        log.info("start %s as attempt %s", name, request.attempt)
        manifest = run_request(request, tell)
        log.info("committed %s: %s", name, json.dumps(manifest.results))
        send({"job": name, "state": "succeeded"})
    except MstarError as error:
        log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - a person's mistake needs no traceback
        send(_failure(name, str(error), error.exit_code, retriable=error.retriable))
    except MemoryError:
        log.exception("out of memory")
        send(
            _failure(
                name,
                "out of memory; lower execution.sampling_rows or micro_batch",
                13,
                retriable=True,
            )
        )
    except Exception as error:  # noqa: BLE001 - the worker must outlive a defect, and the log keeps its traceback
        log.error("%s", traceback.format_exc())  # noqa: TRY400
        message = f"a defect in mstar: {type(error).__name__}: {error}"
        send(_failure(name, message, 1, retriable=False))


def throttled(tell: Tell, clock: Callable[[], float], seconds: float = TELL_SECONDS) -> Tell:
    """``tell``, called at most every so many seconds, and always for the first and the last unit."""
    last = -seconds

    def maybe(done: int, total: int, unit: str) -> None:
        nonlocal last
        now = clock()
        if now - last >= seconds or done in (0, total):
            last = now
            tell(done, total, unit)

    return maybe


def _listen(jobs: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(
        0
    )  # whoever asked is gone: nobody would read the result, and the store holds what is committed


def _log_to(path: Path) -> None:
    """Send logging, and whatever libraries print, to the job's own file."""
    stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(stream, sys.stderr.fileno())
    os.dup2(stream, sys.stdout.fileno())
    os.close(stream)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )


def _progress(name: str, done: int, total: int, unit: str) -> dict[str, Any]:
    return {"job": name, "state": "running", "done": done, "total": total, "unit": unit}


def _failure(name: str, message: str, code: int, *, retriable: bool) -> dict[str, Any]:
    return {
        "job": name,
        "state": "failed",
        "message": message,
        "exit_code": code,
        "retriable": retriable,
    }


if __name__ == "__main__":
    main()
