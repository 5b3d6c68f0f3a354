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
_MESSAGE_CHARACTERS = 3000  # Kubernetes keeps 4096 bytes


def last_word(message: str, exit_code: int, *, retriable: bool, path: Path = LAST_WORD) -> None:
    """Leave a pod's termination message, where there is a place for it: why it ended, for whoever looks at the pod."""
    body = {
        "message": message[:_MESSAGE_CHARACTERS],
        "exit_code": exit_code,
        "retriable": retriable,
    }
    try:
        path.write_text(json.dumps(body) + "\n", encoding="utf-8")
    except OSError as error:
        logging.getLogger("mstar").info("no termination message could be left: %s", error)
