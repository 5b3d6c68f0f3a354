"""How much of finished runs' wall time was not the stages' own work: processes, storage, controller."""

import argparse
import json
from pathlib import Path
from typing import Any

from mstar.history import load_history
from mstar.storage.folder import FolderStore
from mstar.storage.reading import resolve


def measure(store: Path, runs: list[str]) -> dict[str, Any]:
    """The share, over all steps that these runs executed themselves."""
    folder = FolderStore(store)
    wall = work = 0.0
    for run in runs:
        for entry in load_history(folder, run):
            if entry.adopted:
                continue
            wall += entry.seconds
            work += sum(resolve(folder, entry.ref).timings.values())
    return {
        "benchmark": "demo overhead",
        "measured": {"steps' wall seconds": round(wall, 1), "stages' own seconds": round(work, 1)},
        "ratio": round((wall - work) / wall, 3),
        "wanted": 0.10,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", nargs="+")
    given = parser.parse_args()
    print(json.dumps(measure(given.store, given.runs)))
