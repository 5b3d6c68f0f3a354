"""What Kubernetes costs: rendering a long run, and starting ``mstarctl run --dry-run``; as JSON."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from mstarctl.objects import noted

from mstar.cluster import Cluster
from mstar.config import parse_spec
from mstar.demo.dataset import write_dataset
from mstar.demo.specs import base_folder, read_recipe

ITERATIONS = 246
STARTS = 9
QUERIES = {"train": 100_000, "validation": 250, "test": 1000}


def rendering() -> tuple[int, float]:
    """Objects of a run of a thousand steps, and the seconds it takes to render them (median of five)."""
    raw = read_recipe() | {
        "data": {"path": "data"},
        "model": "model",
        "store": "s3://bucket/prefix",
    }
    raw["evolve"] |= {"iterations": ITERATIONS}
    spec = parse_spec(raw)
    times, count = [], 0
    for _ in range(5):
        start = time.perf_counter()
        count = sum(1 for _ in noted(spec, Cluster(), QUERIES))
        times.append(time.perf_counter() - start)
    return count, statistics.median(times)


def dry_run() -> tuple[float, float]:
    """Median seconds of ``mstarctl run --dry-run`` of the demo's recipe, and of Python doing nothing, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data", sizes={"train": 64, "validation": 8, "test": 8})
        raw = read_recipe() | {"data": {"path": "data"}, "model": str(base_folder())}
        raw["store"] = "s3://bucket/prefix"
        (folder / "spec.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
        command = ["-m", "mstarctl.main", "run", "-f", str(folder / "spec.yaml"), "--dry-run"]
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(STARTS):
            for arguments, times in ((command, ours), (["-c", "pass"], bare)):
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, *arguments],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | {"KUBECONFIG": "/nonexistent"},
                )
                times.append(time.perf_counter() - start)
    return statistics.median(ours), statistics.median(bare)


if __name__ == "__main__":
    objects, seconds = rendering()
    ours, bare = dry_run()
    print(
        json.dumps(
            {"objects": objects, "render_seconds": seconds, "dry_run": ours, "python": bare},
        )
    )
