"""A language model that reads answers where the official rule reads none; it never sees what is right.

What it replied is kept in a file under a hash of all that it was asked, so nothing is asked twice.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mstar.storage.faults import explained

AT_ONCE = 4
GIVE_UP = 8
"""Failures in a row after which no more is asked."""

Reply = Callable[[str], str]
"""The model's reply to a prompt; raises ``NoReply`` when there is none to be had. Called from several threads."""

Tell = Callable[[int, int, str], None]
"""Called with what is done, of how many, and of what."""


class NoReply(Exception):
    """Why the model did not reply to a prompt; it may to another."""


class Judge:
    """``reply`` asks the model that ``identity`` names (address and model); ``memory`` is the file of its replies.

    ``asked`` counts what it was to read so far, ``failed`` that of it to which there is no reply, and ``why`` is the
    first reason, None where it never failed.
    """

    def __init__(self, reply: Reply, identity: str, memory: Path) -> None:
        self._reply = reply
        self._identity = identity
        self._memory = memory
        self._known = dict(_remembered(memory))
        self.asked = self.failed = 0
        self.why: str | None = None

    def replies(self, prompts: Sequence[str], tell: Tell) -> list[str | None]:
        """One reply a prompt, in order; None where it failed, and for all after too many failures in a row."""
        names = [self._name(prompt) for prompt in prompts]
        missing = {n: p for n, p in zip(names, prompts, strict=True) if n not in self._known}
        to_ask = list(missing.items())
        failures = 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for start in range(0, len(to_ask), AT_ONCE):
                tell(start, len(to_ask), "judged")
                if failures >= GIVE_UP:
                    break
                some = to_ask[start : start + AT_ONCE]
                for (name, _), reply in zip(
                    some, pool.map(self._try, [prompt for _, prompt in some]), strict=True
                ):
                    failures = failures + 1 if reply is None else 0
                    if reply is not None:
                        self._remember(name, reply)
        found = [self._known.get(name) for name in names]
        self.asked += len(found)
        self.failed += found.count(None)
        return found

    def as_json(self) -> dict[str, Any]:
        """How it went, for programs."""
        return {"asked": self.asked, "failed": self.failed, "reason": self.why}

    def _try(self, prompt: str) -> str | None:
        try:
            return self._reply(prompt)
        except NoReply as error:
            self.why = self.why or str(error)
            return None

    def _name(self, prompt: str) -> str:
        return hashlib.sha256(f"{self._identity}\n{prompt}".encode()).hexdigest()

    def _remember(self, name: str, reply: str) -> None:
        self._known[name] = reply
        memory = self._memory
        with explained("write", memory), memory.open("a", encoding="utf-8") as file:
            # A line of its own also after one that was cut short.
            file.write("\n" + json.dumps({"asked": name, "reply": reply}) + "\n")


def _remembered(memory: Path) -> Iterator[tuple[str, str]]:
    if not memory.is_file():
        return
    for line in memory.read_text(encoding="utf-8").splitlines():
        try:
            body = json.loads(line)
            yield body["asked"], body["reply"]
        except (ValueError, KeyError, TypeError):
            continue  # cut short when somebody stopped it: it is asked again
