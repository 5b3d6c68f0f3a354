"""Training in as many processes as the execution asks for: in this one, or in DeepSpeed ranks beside it.

The rows are written to a temporary folder that every rank of this machine reads; ranks compute the same plan from the
same rows, so nothing else is passed between them. The first rank of the machine reports back through files there. On
several machines each starts its own ranks, which meet at the first machine's address.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from mstar import errors
from mstar.execution import Execution
from mstar.optimization import Optimization
from mstar.stages.backends.handover import (
    SAID,
    Job,
    ask_to_stop,
    begun,
    read_error,
    read_parts,
    read_progress,
    read_report,
    read_trace,
    write_job,
    write_rows,
)
from mstar.stages.backends.runtime import check_ranks, choose_device
from mstar.stages.context import Gang, never
from mstar.stages.gang import await_address
from mstar.stages.interim import Interim
from mstar.stages.protocols import Progress, TrainingRow, TrainReport
from mstar.storage.manifest import Part

log = logging.getLogger(__name__)

RANK_MODULE = "mstar.stages.backends.rank"
POLL_SECONDS = 0.2
END_SECONDS = 30
MEETING_SECONDS = 900
"""How long the machines of a gang wait for the last of them to start its ranks."""
LOG_CHARS = 8000
LAST_CHARS = 400
LAUNCHER_SAYS = "torch/distributed/elastic/multiprocessing/api.py"
"""In the line with which torchrun begins to say, at length, which rank failed."""


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
    interim: Interim | None = None,
    stopping: Callable[[], bool] = never,
    gang: Gang | None = None,
    handed: Callable[[Iterable[Part]], object] = list,
) -> TrainReport:
    """Train as ``AccelerateTrainer`` does; under DeepSpeed in ``processes`` processes on each machine.

    ``interim`` takes checkpoints inside the step; without it training cannot be stopped in order. On several machines
    each leaves in ``save_to`` what its own ranks wrote, and all but the first have it sent to the store: ``handed`` is
    told of those parts, on the first machine of all, on another of its own.
    """
    if execution.deepspeed is None:
        from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
        from mstar.stages.backends.keeping import Keeper

        return AccelerateTrainer(objective, model_dir, execution).train(
            rows,
            optimization,
            seed=seed,
            resume_from=resume_from,
            save_to=save_to,
            progress=progress,
            stop_after=stop_after,
            keeper=Keeper(interim, execution.checkpoint_seconds, stopping),
        )
    if importlib.util.find_spec("deepspeed") is None:
        raise errors.MissingDependency(
            "execution.deepspeed is set, but the package deepspeed is not installed. Install mstar[deepspeed] (Linux "
            "only), or leave execution.deepspeed out."
        )
    scratch = interim.scratch if interim else None
    with tempfile.TemporaryDirectory(prefix="mstar-ranks-", dir=scratch) as name:
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
            interim=interim and interim.place,
            machines=gang.size if gang else 1,
        )
        write_rows(folder, rows)
        write_job(folder, job)
        if gang:
            await_address(gang, stopping)
        _run_ranks(folder, execution, gang, progress, stopping)
        handed(read_parts(folder))
        return read_report(folder)


def _run_ranks(
    folder: Path,
    execution: Execution,
    gang: Gang | None,
    progress: Progress,
    stopping: Callable[[], bool],
) -> None:
    """Start the ranks, pass on what they say until they end, and raise what they raised."""
    assert execution.deepspeed is not None
    processes = execution.deepspeed.processes
    check_ranks(execution, processes)
    command = [sys.executable, "-m", "torch.distributed.run", *_meeting(gang), "--max-restarts=0"]
    command += [f"--nproc-per-node={processes}", "-m", RANK_MODULE, str(folder)]
    heard = _Heard(folder, progress)
    with (folder / "log.txt").open("wb") as output:
        ranks = subprocess.Popen(  # noqa: S603 (our own module)
            command,
            # Never written to: the ranks read its end when this process is gone.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(execution, processes),
            # A signal to this process's group asks this process to stop; the ranks are asked by it.
            start_new_session=True,
        )
        try:
            while ranks.poll() is None:
                heard.pass_on()
                if stopping():
                    if not begun(folder):
                        raise errors.Preempted("preempted before training began; nothing is lost")
                    ask_to_stop(folder)
                try:
                    ranks.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            # An interrupt must not leave ranks behind.
            if ranks.poll() is None:
                _end(ranks)
            assert ranks.stdin is not None
            ranks.stdin.close()
    heard.pass_on()
    if ranks.returncode != 0:
        raise _failure(folder, ranks.returncode)


def _meeting(gang: Gang | None) -> list[str]:
    """How torchrun finds the other machines; alone it needs no address."""
    if gang is None or gang.size == 1:
        return ["--standalone"]
    return [
        f"--nnodes={gang.size}",
        f"--node-rank={gang.rank}",
        f"--master-addr={gang.address}",
        f"--master-port={gang.port}",
        f"--rdzv-conf=timeout={MEETING_SECONDS}",
    ]


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


class _Heard:
    """What the ranks have said so far, passed on as it comes: examples done, and lines for the log."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._done = 0
        self._said = 0

    def pass_on(self) -> None:
        """Pass on what is new."""
        done = read_progress(self._folder)
        if done > self._done:
            self._progress(done - self._done)
            self._done = done
        path = self._folder / SAID
        if not path.exists():
            return
        whole, _, _ = path.read_bytes()[self._said :].rpartition(b"\n")
        if whole:
            self._said += len(whole) + 1
            for line in whole.decode(errors="replace").splitlines():
                log.info("rank: %s", line)


def _failure(folder: Path, code: int) -> Exception:
    """What a rank raised for a person to read, else that the ranks were lost and the first one's last words."""
    found = read_error(folder)
    if found is not None:
        kind = getattr(errors, found["type"])
        failure: errors.MstarError = kind(found["message"])
        return failure
    last = read_trace(folder) or (folder / "log.txt").read_text(errors="replace")
    log.error(
        "the training processes ended with exit code %d; they said: %s", code, last[-LOG_CHARS:]
    )
    own = last.partition(LAUNCHER_SAYS)[0].splitlines()
    if LAUNCHER_SAYS in last:
        del own[-1]  # the beginning of the launcher's line
    words = next((line.strip() for line in reversed(own) if line.strip()), "nothing")
    return errors.WorkerLost(
        f"the training processes ended with exit code {code}; the last they said: {words[-LAST_CHARS:]}"
    )
