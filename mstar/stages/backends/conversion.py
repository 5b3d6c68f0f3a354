"""A checkpoint's optimizer, taken over by another number of ranks or another ZeRO stage.

Between any two layouts lies DeepSpeed's universal checkpoint: a folder a parameter, with its whole weight and moments.
DeepSpeed's own tool writes it from a ZeRO checkpoint and its optimizers read it; for training without DeepSpeed both
are done here.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

from mstar.errors import ModelError
from mstar.stages.backends.checkpoint import TrainerState, layout
from mstar.stages.backends.objectives import PolicyLoss
from mstar.stages.backends.ranks import everyones, is_first, is_first_here, machine
from mstar.stages.backends.session import Session, check_same_weights, load_module

log = logging.getLogger(__name__)

MOMENTS = ("exp_avg", "exp_avg_sq")
VALUE = "param"
"""What DeepSpeed calls the tensor inside each file."""

WORKERS = 2
CHARS = 400


def take_over(
    session: Session, checkpoint: Path, found: TrainerState, wanted: TrainerState, near: Path
) -> None:
    """Give the session a checkpoint's optimizer and schedule; the checkpoint is of the layout ``found``.

    What cannot be converted at all (``check_convertible``) has been refused before.
    ``near`` is a folder of this machine in which there is room for weights and moments in float32. The random states
    of the ranks are not taken over. All ranks call this together.
    """
    if is_first():
        log.info(
            "converting the optimizer of %s, which was trained %s, for training %s; random states begin anew",
            checkpoint,
            layout(found),
            layout(wanted),
        )
    if found.zero_stage is not None:
        check_same_weights(session.family.path, checkpoint / "model")
    with tempfile.TemporaryDirectory(prefix="mstar-universal-", dir=near) as own:
        # One folder a machine: its first rank's.
        folder = Path(dict(reversed(everyones((machine(), own))))[machine()])
        problem = _attempt(session, checkpoint, found, folder) if is_first_here() else None
        told = next(filter(None, everyones(problem)), None)
        if told:
            raise ModelError(
                f"{checkpoint} was trained {layout(found)} and cannot be converted for training {layout(wanted)}: "
                f"{told}. Train as it was trained, or start with a fresh optimizer."
            )
        if session.deepspeed:
            _read_sharded(session, folder)
        else:
            _read_plain(session, folder)
        session.accelerator.wait_for_everyone()
    scheduled = torch.load(checkpoint / "trainer" / "scheduler.bin", weights_only=True)
    session.schedule.load_state_dict(scheduled)
    for group, rate in zip(
        session.optimizer.param_groups, session.schedule.get_last_lr(), strict=True
    ):
        group["lr"] = rate


def _attempt(session: Session, checkpoint: Path, found: TrainerState, folder: Path) -> str | None:
    """Write the universal checkpoint; why it cannot be done."""
    try:
        if found.zero_stage is None:
            _write_plain(session, checkpoint, folder)
        else:
            _write_sharded(session, checkpoint, found, folder)
    except (OSError, KeyError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _trained(session: Session) -> dict[str, torch.nn.Parameter]:
    """The trained parameters by name, in the optimizer's order."""
    module = session.accelerator.unwrap_model(session.module)
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _shape(parameter: torch.nn.Parameter) -> torch.Size:
    """A parameter's whole shape; under ZeRO stage 3 a rank holds none of it."""
    whole: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return whole


def _write_plain(session: Session, checkpoint: Path, folder: Path) -> None:
    """From a checkpoint without DeepSpeed; the weights are those that the session begins with, in full precision."""
    saved = torch.load(
        checkpoint / "trainer" / "optimizer.bin", map_location="cpu", weights_only=True
    )
    module = session.accelerator.unwrap_model(session.module)
    objective: Literal["policy", "prm"] = "policy" if isinstance(module, PolicyLoss) else "prm"
    whole = dict(load_module(objective, session.family, torch.device("cpu")).named_parameters())
    steps = []
    for index, (name, parameter) in enumerate(_trained(session).items()):
        state = saved["state"].get(index)
        zeros = torch.zeros(_shape(parameter))
        for moment in MOMENTS:
            _put(folder, name, moment, zeros if state is None else state[moment])
        _put(folder, name, "fp32", whole[name].detach())
        if state is not None:
            steps.append(float(state["step"]))
    _put_common(session, folder, max(steps, default=0.0))


def _write_sharded(session: Session, checkpoint: Path, found: TrainerState, folder: Path) -> None:
    """From DeepSpeed's checkpoint, by DeepSpeed's own tool in a process of its own."""
    source = checkpoint / "trainer" / "pytorch_model"
    command = [
        sys.executable,
        "-m",
        "deepspeed.checkpoint.ds_to_universal",
        "--inject_missing_state",
    ]
    command += ["--input_folder", str(source), "--output_folder", str(folder / "universal")]
    command += [f"--num_extract_workers={WORKERS}", f"--num_merge_workers={WORKERS}"]
    environment = {name: value for name, value in os.environ.items() if name not in _MEETING}
    ran = subprocess.run(  # noqa: S603 (DeepSpeed's own module)
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment | {"DS_ACCELERATOR": "cpu"},
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise RuntimeError(f"DeepSpeed's conversion failed: {ran.stdout.strip()[-CHARS:]}")
    written = folder / "universal" / "zero"
    common = torch.load(written / "optimizer_state.pt", map_location="cpu", weights_only=False)
    step: float | None = None
    for name, parameter in _trained(session).items():
        for what in ("fp32", *MOMENTS):
            value = torch.load(
                written / name / f"{what}.pt", map_location="cpu", weights_only=False
            )
            # Stage 3 leaves the bare values, and without their shape.
            bare = value[VALUE] if isinstance(value, dict) else value
            _put(folder, name, what, bare.reshape(_shape(parameter)))
        if found.zero_stage != 3:
            step = float(torch.load(written / name / "step.pt", weights_only=False))
    if step is None:
        step = float(common["optimizer_state_dict"]["state"][0]["step"])
    _put_common(session, folder, step)


_MEETING = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""How ranks find each other: the tool is none of them."""


def _put(folder: Path, name: str, what: str, value: torch.Tensor) -> None:
    path = folder / "zero" / name / f"{what}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({VALUE: value.float().contiguous().clone()}, path)


def _put_common(session: Session, folder: Path, step: float) -> None:
    """What DeepSpeed wants beside the parameters: the optimizer's settings, which are this session's, and its step."""
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in session.optimizer.param_groups
    ]
    common: dict[str, Any] = {
        "step": step,
        "param_groups": groups,
        "optimizer_state_dict": {
            "state": {0: {"step": torch.tensor(step)}},
            "param_groups": groups,
        },
    }
    if session.deepspeed:
        import deepspeed

        common["ds_version"] = deepspeed.__version__
        for name in _trained(session):
            torch.save(torch.tensor(step), folder / "zero" / name / "step.pt")
    torch.save(common, folder / "zero" / "optimizer_state.pt")


def _read_sharded(session: Session, folder: Path) -> None:
    """Have DeepSpeed's optimizer read its share, and the model's weights follow the optimizer's."""
    sharded = session.module.optimizer
    if hasattr(sharded, "checkpoint_event_prologue"):
        sharded.checkpoint_event_prologue()
    sharded.load_state_dict(
        state_dict_list=None,
        load_optimizer_states=True,
        load_from_fp32_weights=True,
        checkpoint_folder=str(folder),
    )
    if hasattr(sharded, "checkpoint_event_epilogue"):
        sharded.checkpoint_event_epilogue()
    if hasattr(sharded, "update_lp_params"):
        sharded.update_lp_params()


def _read_plain(session: Session, folder: Path) -> None:
    zero = folder / "zero"
    step = torch.load(zero / "optimizer_state.pt", weights_only=False)["step"]
    states = {}
    for index, (name, parameter) in enumerate(_trained(session).items()):
        saved = {
            what: torch.load(zero / name / f"{what}.pt", weights_only=True)[VALUE]
            for what in ("fp32", *MOMENTS)
        }
        with torch.no_grad():
            parameter.copy_(saved.pop("fp32"))
        states[index] = saved | {"step": torch.tensor(step)}
    current = session.optimizer.state_dict()
    session.optimizer.load_state_dict(current | {"state": states})
