"""What a check says, and how one comes to say something whatever happens to it."""

from __future__ import annotations

import gc
import io
import logging
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from mstar.errors import ModelError, MstarError, OutOfMemory

log = logging.getLogger(__name__)

LONGEST = 500
"""Characters of a library's message that are shown."""

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found. ``ok`` is None when it was not tried; ``code`` is the exit code of a failure, else 0."""

    what: str
    ok: bool | None
    found: str
    advice: str = ""
    seconds: float = 0.0
    code: int = 0


class Fault(Exception):
    """A check's verdict that something is wrong: what was found, with figures, and what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.found, self.advice = found, advice


class NotTried(Exception):
    """A check could not be made here; nothing is said about the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[Subject]):
    """``look`` returns what is well or raises ``Fault`` or ``NotTried``; it waits for the checks in ``needs``."""

    what: str
    look: Callable[[Subject], str]
    needs: tuple[str, ...] = ()


def make(check: Check[Subject], subject: Subject, well: Collection[str]) -> Finding:
    """Make one check of ``subject``; ``well`` names the checks that were well so far. Raises nothing but interrupts."""
    lacking = [name for name in check.needs if name not in well]
    if lacking:
        return Finding(what=check.what, ok=None, found=f"not tried: it needs {lacking[0]!r}")
    start = time.perf_counter()
    ok, found, advice, code = _ask(check, subject)
    seconds = round(time.perf_counter() - start, 2)
    return Finding(what=check.what, ok=ok, found=found, advice=advice, seconds=seconds, code=code)


def _ask(check: Check[Subject], subject: Subject) -> tuple[bool | None, str, str, int]:
    try:
        with _quiet(check.what):
            return True, check.look(subject), "", 0
    except Fault as fault:
        return False, fault.found, fault.advice, ModelError.exit_code
    except NotTried as reason:
        return None, f"not tried: {reason}", "", 0
    except MstarError as error:
        return False, str(error), "", error.exit_code
    except (torch.OutOfMemoryError, MemoryError) as error:
        found = f"out of memory: {short(error)}"
    except Exception as error:
        log.info("%s", check.what, exc_info=True)
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {short(error)} ({where.filename}:{where.lineno})"
        advice = "The library or the model's family does not take what this check gives it."
        return False, found, advice, ModelError.exit_code
    # Only here are the frames gone that held what filled the memory.
    free_memory()
    advice = "End what else uses the device, or try a smaller --max-pixels or --device cpu."
    return False, found, advice, OutOfMemory.exit_code


@contextmanager
def _quiet(what: str) -> Iterator[None]:
    """Libraries talk on both streams, and a table or JSON is no place for that: it goes to the log."""
    said = io.StringIO()
    with warnings.catch_warnings(action="ignore"), redirect_stdout(said), redirect_stderr(said):
        yield
    if said.getvalue():
        log.info("%s: %s", what, said.getvalue())


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def short(error: BaseException) -> str:
    """An error's text, shortened."""
    return textwrap.shorten(str(error) or "no message", LONGEST, placeholder=" …")
