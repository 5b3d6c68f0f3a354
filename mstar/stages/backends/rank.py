"""One rank of a training step: ``python -m torch.distributed.run … -m mstar.stages.backends.rank FOLDER``."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from pathlib import Path

from mstar.errors import MstarError, WorkerLost
from mstar.stages.backends.handover import (
    SAID,
    HandedRows,
    asked_to_stop,
    read_job,
    write_error,
    write_parts,
    write_progress,
    write_report,
    write_trace,
)


def main(folder: Path) -> int:
    """Train this rank's share; the first rank of each machine reports. The exit code is 0, or that of the error."""
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    from mstar.stages.backends.accelerate_trainer import AccelerateTrainer
    from mstar.stages.backends.keeping import Keeper, hand_over
    from mstar.stages.interim import Interim

    job = read_job(folder)
    _leave_collectives_to_gloo()
    first_here = os.environ["LOCAL_RANK"] == "0"
    if first_here:
        _say_to(folder / SAID)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if first_here:
            write_progress(folder, done)

    interim = Interim.at(job.interim) if job.interim else None
    keeper = Keeper(interim, job.execution.checkpoint_seconds, lambda: asked_to_stop(folder))
    try:
        report = AccelerateTrainer(job.objective, job.model_dir, job.execution).train(
            HandedRows(folder),
            job.optimization,
            seed=job.seed,
            resume_from=job.resume_from,
            save_to=job.save_to,
            progress=progress,
            stop_after=job.stop_after,
            keeper=keeper,
        )
        parts = hand_over(interim, job.save_to) if interim and job.machines > 1 else []
    except MstarError as error:
        write_error(folder, error)
        return error.exit_code
    except Exception:
        write_trace(folder, traceback.format_exc())
        raise
    if first_here:
        write_parts(folder, parts)
        write_report(folder, report)
    return 0


def _end_with_launcher() -> None:
    """The launcher holds the other end of standard input: when it is gone, however it went, so is this rank."""
    # Not sys.stdin, whose lock this thread would still hold when the interpreter ends.
    while os.read(0, 1):
        continue
    os._exit(WorkerLost.exit_code)


def _say_to(path: Path) -> None:
    """Leave what mstar logs where the launcher passes it on."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("mstar")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _leave_collectives_to_gloo() -> None:
    """On a CPU DeepSpeed compiles collectives of its own when it starts, which takes a minute and needs a compiler."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _leave(code: int) -> None:
    """End this process at once: the interpreter's own ending may abort in gloo's threads, after all is done."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main(Path(sys.argv[1])))
