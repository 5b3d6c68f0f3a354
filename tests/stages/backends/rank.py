"""A rank that takes its time: ``mstar.stages.backends.rank``, standing still where a test is to find it.

``launch.RANK_MODULE`` may name this module. Training waits a moment before each optimizer step, and stands still from
the ``calls``-th step of its own on, once a checkpoint after ``kept`` steps is in the store, until it is asked to stop
or a rank is lost: who waits for that to do something to the ranks finds them there, however late it looks.
"""

import os
import sys
import time
from pathlib import Path

NAME = "tests.stages.backends.rank"
STANDS = "MSTAR_TEST_STANDS"


def stands(*, calls: int = 0, kept: int = 0) -> dict[str, str]:
    """The environment that tells ranks where to stand still."""
    return {STANDS: f"{calls},{kept}"}


def main(folder: Path) -> int:
    """One rank's share, at a walk."""
    from mstar.stages.backends import rank
    from mstar.stages.backends.keeping import Due, Keeper
    from mstar.stages.backends.ranks import each_highest

    calls, kept = map(int, os.environ[STANDS].split(","))
    made, due = 0, Keeper.due

    def paced(self: Keeper) -> Due:
        nonlocal made
        made += 1
        time.sleep(0.1)
        # Together, so that each of them notices when another is lost.
        while made >= calls:
            found, asked = each_highest(self.kept, int(self.asked_to_stop()))
            if found < kept or asked:
                break
            time.sleep(0.05)
        return due(self)

    Keeper.due = paced  # type: ignore[method-assign]
    return rank.main(folder)


if __name__ == "__main__":
    from mstar.stages.backends.rank import _leave

    _leave(main(Path(sys.argv[1])))
