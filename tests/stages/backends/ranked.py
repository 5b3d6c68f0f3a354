"""Trainings on ranks that stay: ``python -m tests.stages.backends.ranked FOLDER`` is one of them.

``train_all`` starts two and has them do one training after another, so that torch and DeepSpeed are imported once. Each
is done in one piece (``once``), and as a first step (``0``) that a session of its own goes on from (``1``).
"""

import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mstar.execution import DeepSpeed, Execution
from mstar.optimization import Optimization
from tests.ports import Port
from tests.stages.backends.rows import make_rows

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 900
ROWS = 15
"""Batches of 7, 7 and 1: an uneven share, and a rank without any row."""


class Asked(BaseModel):
    """One training: how, what, and on which model."""

    model: Path
    objective: str = "policy"
    optimization: Optimization
    deepspeed: dict[str, Any]
    execution: dict[str, Any] = {}


@dataclass(frozen=True)
class Found:
    """What came of one training: losses in one piece, losses in two, and what the whole took."""

    folder: Path
    once: list[float] = field(default_factory=list)
    parts: list[float] = field(default_factory=list)
    usage: dict[str, float] = field(default_factory=dict)
    error: str = ""


def train_all(folder: Path, asked: dict[str, Asked]) -> dict[str, Found]:
    """Do all of them on two ranks; one that fails has its traceback in ``error``."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {name: body.model_dump(mode="json") for name, body in asked.items()}
    (folder / "asked.json").write_text(json.dumps(bodies))
    port = Port()
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    common = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port.number),
    }
    command = [sys.executable, "-m", "tests.stages.backends.ranked", str(folder)]
    ranks = []
    for rank in ("0", "1"):
        own = {"RANK": rank, "LOCAL_RANK": rank}
        with (folder / f"log{rank}.txt").open("wb") as log:
            ranks.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=common | own, stdout=log, stderr=subprocess.STDOUT
                )
            )
    try:
        for process in ranks:
            process.wait(SECONDS)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
        port.close()
    said = (folder / "log0.txt").read_text()[-2000:]
    found = {}
    for name in asked:
        path = folder / name / "found.json"
        body = json.loads(path.read_text()) if path.exists() else {"error": f"never done; {said}"}
        found[name] = Found(folder=folder / name, **body)
    return found


def do(folder: Path, asked: Asked) -> dict[str, Any]:
    """One training, in one piece and in two."""
    from mstar.stages.backends.accelerate_trainer import AccelerateTrainer

    execution = Execution(
        device="cpu",
        threads=1,
        deepspeed=DeepSpeed(processes=2, **asked.deepspeed),
        **asked.execution,
    )

    def train(model: Path, name: str, resume: Path | None = None, stop: int | None = None) -> Any:
        objective: Any = asked.objective
        return AccelerateTrainer(objective, model, execution).train(
            make_rows(ROWS, steps=True),
            asked.optimization,
            seed=3,
            resume_from=resume,
            save_to=folder / name,
            progress=lambda _: None,
            stop_after=stop,
        )

    once = train(asked.model, "once")
    first = train(asked.model, "0", stop=1)
    # Adapters go on beside the weights that they began with, which the stage finds again.
    weights = asked.model if asked.optimization.lora else folder / "0/model"
    second = train(weights, "1", resume=folder / "0")
    return {
        "once": once.losses,
        "parts": first.losses + second.losses,
        "usage": once.usage,
    }


def main(folder: Path) -> int:
    """All that is asked, by one rank; the first one says what came of it."""
    import torch

    from mstar.stages.backends import joining, rank

    torch.set_num_threads(1)
    rank._leave_collectives_to_gloo()
    config = joining._deepspeed_config

    def small(*args: Any, **kwargs: Any) -> dict[str, Any]:
        """These models are so small that stage 3 would keep all of their weights on every rank."""
        found = config(*args, **kwargs)
        if found["zero_optimization"]["stage"] == 3:
            found["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return found

    joining._deepspeed_config = small
    for name, body in json.loads((folder / "asked.json").read_text()).items():
        try:
            found = do(folder / name, Asked.model_validate(body))
        except Exception:  # noqa: BLE001 (the test of this one fails with it, the others go on)
            found = {"error": traceback.format_exc()}
        if os.environ["RANK"] == "0":
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "found.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    # The interpreter's own ending may abort in gloo's threads, after all is done.
    sys.stdout.flush()
    os._exit(code)
