"""One rank of a training step: ``python -m torch.distributed.run … -m mstar.stages.backends.rank FOLDER``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mstar.errors import MstarError
from mstar.stages.backends.handover import (
    HandedRows,
    read_job,
    write_error,
    write_progress,
    write_report,
)


def main(folder: Path) -> int:
    """Train this rank's share; rank 0 reports. The exit code is 0, or that of the error."""
    from mstar.stages.backends.accelerate_trainer import AccelerateTrainer

    job = read_job(folder)
    _leave_collectives_to_gloo()
    first = os.environ["RANK"] == "0"
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if first:
            write_progress(folder, done)

    try:
        report = AccelerateTrainer(job.objective, job.model_dir, job.execution).train(
            HandedRows(folder),
            job.optimization,
            seed=job.seed,
            resume_from=job.resume_from,
            save_to=job.save_to,
            progress=progress,
            stop_after=job.stop_after,
        )
    except MstarError as error:
        write_error(folder, error)
        return error.exit_code
    if first:
        write_report(folder, report)
    return 0


def _leave_collectives_to_gloo() -> None:
    """On a CPU DeepSpeed compiles collectives of its own when it starts, which takes a minute and needs a compiler."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
