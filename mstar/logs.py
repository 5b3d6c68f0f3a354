"""How processes log: readable lines for people, one JSON object a line where programs collect them."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import IO

ENVIRONMENT = "MSTAR_LOG"
"""``json`` for machines; anything else, or nothing, for people."""


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, what ``extra`` gave, and a traceback if there is one."""

    _standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        body: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        body |= {key: value for key, value in vars(record).items() if key not in self._standard}
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body, default=str)


def set_up(stream: IO[str] | None = None) -> None:
    """Log to ``stream`` (standard error) from ``INFO`` on, in the form that ``MSTAR_LOG`` asks for."""
    handler = logging.StreamHandler(stream or sys.stderr)
    if os.environ.get(ENVIRONMENT) == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


LAST_WORD = Path("/dev/termination-log")
_MESSAGE_BYTES = 4000  # Kubernetes keeps the last 4096, and half a JSON object says nothing


def last_word(message: str, exit_code: int, *, retriable: bool, path: Path | None = None) -> None:
    """Leave a pod's termination message, where there is a place for it: why it ended, for whoever looks at the pod."""
    place = path or LAST_WORD
    body = {"message": message, "exit_code": exit_code, "retriable": retriable}
    while (
        len(line := json.dumps(body, ensure_ascii=False).encode(errors="replace")) > _MESSAGE_BYTES
    ):
        message = message[: len(message) * 3 // 4]
        body["message"] = f"{message}…"
    try:
        if place.exists():  # a pod's runtime has made it
            place.write_bytes(line + b"\n")
    except OSError as error:
        logging.getLogger("mstar").info("no termination message could be left: %s", error)
