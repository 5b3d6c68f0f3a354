"""An OpenAI-compatible chat endpoint over plain HTTP: bounded in time, in bytes and in tries."""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from mstar.analysis.rubric import REPLY_TOKENS
from mstar.errors import SpecError

PAUSES = (1.0, 4.0, 15.0)
"""Seconds between the tries at one question, unless the endpoint says how long to wait."""

LONGEST_PAUSE = 30.0
TIMEOUT_SECONDS = 60.0
"""For one try. After one and a half times this a question is not tried again."""

MOST_BYTES = 1 << 20
CHUNK = 1 << 14
SHOWN = 160


class JudgeFailed(Exception):
    """One question was not answered, though it was asked as often as is allowed; another may be."""


class JudgeRefused(Exception):
    """The endpoint says no to all questions alike: wrong key, no such model, no such address."""


class Endpoint:
    """``url`` is the API's base (``http://host/v1``) or the whole address of its chat completions.

    ``key`` is sent as a bearer token, and never written or shown. ``sleep`` waits between tries. Raises ``SpecError``
    for an address or a key that is none.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = _address(url)
        self.model = model
        self._key = _checked(key)
        self._timeout = timeout
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._clock = clock
        self._opener = urllib.request.build_opener(_StayHere)

    def request(self, messages: Sequence[dict[str, str]]) -> dict[str, Any]:
        """What is sent: with the address, all that a reply depends on."""
        return {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }

    def reply(self, request: dict[str, Any], usable: Callable[[str], bool]) -> str:
        """The assistant's text, for which ``usable`` holds.

        Asked again a few times when the endpoint is busy, down, slow or talks nonsense; then raises ``JudgeFailed``.
        Raises ``JudgeRefused`` at once when asking again cannot help.
        """
        began = self._clock()
        for usual in (*PAUSES, None):
            try:
                text = self._once(json.dumps(request).encode())
            except _Busy as busy:
                why, pause = str(busy), busy.pause
            except JudgeFailed as failed:
                why, pause = str(failed), None
            else:
                if usable(text):
                    return text
                why, pause = f"its reply holds no score: {_shown(text)!r}", None
            late = self._clock() - began > 1.5 * self._timeout
            if usual is None or late or self._closed.is_set():
                break
            self._sleep(min(LONGEST_PAUSE, usual if pause is None else pause))
        raise JudgeFailed(why)

    def close(self) -> None:
        """Try nothing again: whoever waits for a reply gets it, or its failure, as soon as may be."""
        self._closed.set()

    def _once(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, data=body, headers=headers)  # noqa: S310 - checked by _address
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                data = self._read(response)
        except urllib.error.HTTPError as error:
            with error:
                raise _outcome(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise JudgeFailed(f"no answer from {self.url}: {_reason(error)}") from None
        return _content(data)

    def _read(self, response: Any) -> bytes:
        """The whole body, unless it takes too long or too much: a timeout of the socket alone would not end a drip."""
        deadline, data = self._clock() + self._timeout, b""
        while chunk := response.read1(CHUNK):
            data += chunk
            if len(data) > MOST_BYTES:
                raise JudgeFailed(f"its reply is larger than {MOST_BYTES} bytes")
            if self._clock() > deadline:
                raise TimeoutError("its reply did not end in time")
        return data


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key is for the address that was named and for no other."""

    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        return None


class _Busy(JudgeFailed):
    """Asked to come again later."""

    def __init__(self, message: str, pause: float | None) -> None:
        super().__init__(message)
        self.pause = pause


def _checked(key: str | None) -> str | None:
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise SpecError("the judge's key holds a character that no key has; look at its variable")
    return key or None


def _address(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        fine = fine and url.isascii()
    except ValueError:
        fine = False
    if not fine or parts.username or parts.password or parts.query or parts.fragment:
        raise SpecError(
            "--judge: expected the address of an OpenAI-compatible API such as http://localhost:8000/v1, "
            "without a key or a user in it (the key comes from an environment variable)"
        )
    base = url.strip().rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def _outcome(error: urllib.error.HTTPError) -> Exception:
    try:
        said = _shown(error.read(CHUNK).decode(errors="replace"))
    except (OSError, http.client.HTTPException):
        said = ""
    text = f"it answers {error.code} {error.reason}{f': {said}' if said else ''}"
    if error.code in {408, 425, 429} or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return _Busy(text, float(after) if after.isdecimal() else None)
    return JudgeRefused(text)


def _content(data: bytes) -> str:
    try:
        text = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise JudgeFailed(
            f"its reply is no chat completion: {_shown(data.decode(errors='replace'))!r}"
        )
    return text


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "it took too long"
    return str(cause) or type(cause).__name__


def _shown(text: str) -> str:
    """A piece of a foreign text for a message."""
    plain = " ".join(text.split())
    plain = "".join(character if character.isprintable() else "\ufffd" for character in plain)
    return plain if len(plain) <= SHOWN else f"{plain[:SHOWN]}…"
