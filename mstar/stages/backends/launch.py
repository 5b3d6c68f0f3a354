"""Training in as many processes as the execution asks for: in this one, or in DeepSpeed ranks beside it.

The rows are written to a temporary folder that every rank reads; ranks compute the same plan from the same rows, so
nothing else is passed between them. Rank 0 reports back through files in that folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mstar import errors
from mstar.stages.backends.handover import (
    Job,
    read_error,
    read_progress,
    read_report,
    write_job,
    write_rows,
)
from mstar.stages.backends.runtime import choose_device
from mstar.stages.protocols import Progress, TrainingRow, TrainReport
from mstar.tasks import Execution, Optimization

RANK_MODULE = "mstar.stages.backends.rank"
POLL_SECONDS = 0.2
END_SECONDS = 30


def train_in_ranks(
    objective: Literal["policy", "prm"],
    model_dir: Path,
    execution: Execution,
    rows: Sequence[TrainingRow],
    optimization: Optimization,
    *,
    seed: int,
    resume_from: Path | None,
    save_to: Path,
    progress: Progress,
    stop_after: int | None = None,
) -> TrainReport:
    """Train as ``AccelerateTrainer`` does; under DeepSpeed in its own ``processes`` processes on this machine."""
    if execution.deepspeed is None:
        from mstar.stages.backends.accelerate_trainer import AccelerateTrainer

        return AccelerateTrainer(objective, model_dir, execution).train(
            rows,
            optimization,
            seed=seed,
            resume_from=resume_from,
            save_to=save_to,
            progress=progress,
            stop_after=stop_after,
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise errors.MissingDependency(
            "execution.deepspeed is set, but the package deepspeed is not installed. Install mstar[deepspeed] (Linux "
            "only), or leave execution.deepspeed out."
        )
    with tempfile.TemporaryDirectory(prefix="mstar-ranks-") as name:
        folder = Path(name)
        job = Job(
            objective=objective,
            model_dir=model_dir.resolve(),
            execution=execution,
            optimization=optimization,
            seed=seed,
            resume_from=resume_from and resume_from.resolve(),
            save_to=save_to.resolve(),
            stop_after=stop_after,
        )
        write_rows(folder, rows)
        write_job(folder, job)
        _run_ranks(folder, execution, progress)
        return read_report(folder)


def _run_ranks(folder: Path, execution: Execution, progress: Progress) -> None:
    """Start the ranks, pass their progress on until they end, and raise what they raised."""
    assert execution.deepspeed is not None
    processes = execution.deepspeed.processes
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", RANK_MODULE, str(folder)]
    told = 0
    with (folder / "log.txt").open("wb") as log:
        ranks = subprocess.Popen(  # noqa: S603 (our own module)
            command, stdout=log, stderr=subprocess.STDOUT, env=_environment(execution, processes)
        )
        try:
            while ranks.poll() is None:
                told = _tell(folder, told, progress)
                try:
                    ranks.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            # An interrupt must not leave ranks behind.
            if ranks.poll() is None:
                _end(ranks)
    _tell(folder, told, progress)
    if ranks.returncode != 0:
        raise _failure(folder, ranks.returncode)


def _end(ranks: subprocess.Popen[bytes]) -> None:
    """Terminate torchrun, which ends its ranks, and kill it when that takes too long."""
    ranks.terminate()
    try:
        ranks.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        ranks.kill()
        ranks.wait()


def _environment(execution: Execution, processes: int) -> dict[str, str]:
    threads = execution.threads or max(1, (os.cpu_count() or 1) // processes)
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    if choose_device(execution).type == "cpu":
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    # The ranks must find this package whether or not it is installed.
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _tell(folder: Path, told: int, progress: Progress) -> int:
    done = read_progress(folder)
    if done > told:
        progress(done - told)
    return done


def _failure(folder: Path, code: int) -> Exception:
    """What a rank raised for a person to read, else that the ranks were lost and their last words."""
    found = read_error(folder)
    if found is not None:
        kind = getattr(errors, found["type"])
        failure: errors.MstarError = kind(found["message"])
        return failure
    tail = (folder / "log.txt").read_text(errors="replace")[-4000:]
    return errors.WorkerLost(
        f"the training processes ended with exit code {code}. Their last output: {json.dumps(tail)}"
    )
