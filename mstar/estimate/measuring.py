"""Starting a calibration: the measuring itself is a program of its own, so that torch stays out of this process."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mstar.config import RunSpec
from mstar.errors import DataError, MissingDependency, ModelError, WorkerLost, by_code
from mstar.estimate.calibration import Calibration, parse_calibration

PROGRAM = "mstar.stages.calibrate"
SECONDS = 120.0
"""What the measuring may take; loading the model and starting its engine come on top."""

DEADLINE_SECONDS = 1800.0
LAST_CHARS = 300


def calibrate(spec: RunSpec, *, seconds: float = SECONDS) -> Calibration:
    """Measure this machine with the spec's model, data and execution.

    Raises what the measuring raised; ``WorkerLost`` when its process ended without a word, ``DataError`` and
    ``ModelError`` when there is no data or no model to measure with.
    """
    for path, key, kind in (
        (spec.data.path, "data.path", DataError),
        (spec.model, "model", ModelError),
    ):
        if not Path(path).is_dir():
            raise kind(
                f"--calibrate measures with the spec's own model and data, but {key} names {path}, which is not there"
            )
    with tempfile.TemporaryDirectory(prefix="mstar-plan-") as name:
        folder = Path(name)
        request, out = folder / "request.json", folder / "found.json"
        request.write_text(json.dumps(trial(spec, seconds)))
        with (folder / "log.txt").open("wb") as log:
            try:
                code = subprocess.run(  # noqa: S603 (our own module)
                    [sys.executable, "-m", PROGRAM, str(request), str(out)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                    timeout=DEADLINE_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise WorkerLost(
                    f"the calibration did not end within {DEADLINE_SECONDS / 60:.0f} minutes; lower "
                    "execution.sampling_rows, or measure on the machine that the run is for"
                ) from None
        if not out.is_file():
            raise _lost(code, (folder / "log.txt").read_text(errors="replace"))
        found: dict[str, Any] = json.loads(out.read_text())
    if "error" in found:
        raise by_code(int(found["exit_code"]), f"calibrating: {found['error']}")
    return parse_calibration(found, "the calibration")


def trial(spec: RunSpec, seconds: float) -> dict[str, Any]:
    """The request: what the spec's iterations ask of sampling, scoring and training."""
    rollout, prompts = spec.evolve.rollout, spec.prompts
    form = prompts.model_dump(include={"options_before", "option", "options_between"})
    return {
        "model": spec.model,
        "data": spec.data.path,
        "split": spec.data.train,
        "prompt": {"template": prompts.query, **form},
        "step_separator": prompts.step_separator,
        "sampling": {
            "n": rollout.samples,
            "temperature": rollout.temperature,
            "top_p": rollout.top_p,
            "max_new_tokens": rollout.max_new_tokens,
        },
        "execution": spec.execution.model_dump(mode="json"),
        "optimization": spec.evolve.optimization.model_dump(mode="json"),
        "seconds": seconds,
    }


def _lost(code: int, log: str) -> Exception:
    said = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "nothing")
    if "ModuleNotFoundError" in said:
        return MissingDependency(f"measuring needs mstar[train]: {said}")
    return WorkerLost(
        f"the calibration's process ended with exit code {code}; the last it said: {said[-LAST_CHARS:]}"
    )
