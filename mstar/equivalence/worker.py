"""The process that math-verify runs in: questions come as JSON lines, and each is answered by one line.

It is started by ``pool`` and by nothing else. However its parent ends, it ends: idle, because standard input does; at
work, because the kernel's alarm kills it soon after its deadline, also inside one long multiplication that no Python
code can interrupt.
"""

import contextlib
import json
import logging
import os
import resource
import select
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

START_SECONDS = 120.0
GRACE_SECONDS = 1.0
"""The parent kills at the deadline; where there is none any more, the alarm does so a little later."""

LOOK_SECONDS = 5.0
"""An idle worker looks so often whether its parent is alive, in case another process holds its input open."""

MEMORY_BYTES = 1 << 30
"""Ten times what the library needs: an expression that wants more must not take the machine's memory."""

SWOLLEN_BYTES = MEMORY_BYTES // 2

Same = Callable[[str, str, float, int | None], bool]


def main() -> None:
    """Say that the library is there, then answer questions until standard input ends."""
    signal.setitimer(signal.ITIMER_REAL, START_SECONDS)
    parent = os.getppid()
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        same = load()
    except ImportError as error:
        replies.write(json.dumps({"missing": str(error)}) + "\n")
        return
    replies.write(json.dumps({"ready": os.getpid()}) + "\n")
    # Its parser writes each syntax error there, and wrong answers are full of them.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.setitimer(signal.ITIMER_REAL, 0)
    while (line := _next_line(parent)) is not None:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, asked["deadline"] + GRACE_SECONDS)
        found = answer(asked, same)
        signal.setitimer(signal.ITIMER_REAL, 0)
        swollen = _peak_bytes() > SWOLLEN_BYTES
        # The library takes running out of memory for an expression that it cannot read, and says wrong.
        replies.write(json.dumps({"same": found or (None if swollen else found)}) + "\n")
        if swollen:
            return


def answer(asked: dict[str, Any], same: Same) -> bool | None:
    """Whether all pairs are equal; None when memory was not enough to tell."""
    try:
        return all(
            same(one, other, asked["relative_tolerance"], asked["decimals"])
            for one, other in asked["pairs"]
        )
    except MemoryError:
        return None
    except Exception:  # noqa: BLE001 - whatever a text does to the library, it was not shown to be equal
        return False


def load() -> Same:
    """The comparison, with the library imported. Raises ``ImportError`` when it is not installed."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    # No units, so that "5 m" is not 5; no search for boxes or equations: the text is one expression already.
    how = NormalizationConfig(
        basic_latex=True,
        units=False,
        malformed_operators=True,
        nits=True,
        boxed="none",
        equations=False,
    )
    only = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=how)]

    def read(latex: str) -> Any:
        # Its own timeouts are off: they hold on a main thread only, and not inside one long operation.
        found = parse(
            f"${latex}$", extraction_config=only, fallback_mode="no_fallback", parsing_timeout=None
        )
        return found[0] if found else None

    def same(one: str, other: str, tolerance: float, decimals: int | None) -> bool:
        mine, true = read(one), read(other)
        if mine is None or true is None:
            return False
        if verify([true], [mine], timeout_seconds=None):
            return _truly(mine, true)
        return bool(tolerance or decimals is not None) and _near(mine, true, tolerance, decimals)

    return same


def _truly(mine: Any, true: Any) -> bool:
    """Where a decimal stands for an exact value, six *significant* digits must agree; the library counts decimals."""
    from sympy import Expr, Float

    if not (isinstance(mine, Expr) and isinstance(true, Expr)):
        return True
    if not (mine.is_number and true.is_number and (mine.has(Float) or true.has(Float))):
        return True
    left, right = complex(mine.doit()), complex(true.doit())
    return abs(left - right) <= 1e-6 * max(abs(left), abs(right))


def _near(mine: Any, true: Any, tolerance: float, decimals: int | None) -> bool:
    from sympy import Expr

    if not (
        isinstance(mine, Expr) and isinstance(true, Expr) and mine.is_number and true.is_number
    ):
        return False
    left, right = float(mine.doit()), float(true.doit())
    if decimals is not None and round(left, decimals) == round(right, decimals):
        return True
    return abs(left - right) <= tolerance * abs(right)


def _peak_bytes() -> int:
    """The most memory this process has had resident."""
    with contextlib.suppress(OSError, ValueError):
        # Linux' getrusage begins with what the process had that started this one: a model, say.
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next((line for line in lines if line.startswith("VmHWM:")), "")
        return int(peak.split()[1]) * 1024 if peak else 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on macOS


def _next_line(parent: int) -> bytes | None:
    line = b""
    while not line.endswith(b"\n"):
        while not select.select([0], [], [], LOOK_SECONDS)[0]:
            if os.getppid() != parent:
                return None
        more = os.read(0, 65536)
        if not more:
            return None
        line += more
    return line


if __name__ == "__main__":
    main()
