"""Commands that look after a store, a machine, a model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mstarctl.benchmarks import Device, Engine
from mstarctl.options import Output, OutputOption, StoreOption


class Dtype(StrEnum):
    """What a trainer computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def doctor(
    context: typer.Context,
    store: StoreOption = "runs",
    model: Annotated[
        Path | None,
        typer.Option(help="Check this model's folder instead: does mstar work with these weights?"),
    ] = None,
    prm: Annotated[
        Path | None, typer.Option(help="Check this folder of a PRM, alone or after the model.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="The model: an engine to hold against the trainer.")
    ] = Engine.TRANSFORMERS,
    device: Annotated[Device, typer.Option(help="The model: where to compute.")] = Device.AUTO,
    dtype: Annotated[
        Dtype, typer.Option(help="The model: what the trainer computes in.")
    ] = Dtype.FLOAT32,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="The model: largest image, as execution.max_pixels.")
    ] = None,
    remote_code: Annotated[
        bool,
        typer.Option("--remote-code", help="Let Python code that lies in the model folder run."),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Check Python, packages, disk, memory and the store; or a model's folder (--model, --prm). Say what to do."""
    from mstarctl import health

    as_json = output is Output.JSON
    if model is None and prm is None:
        for name in ("engine", "device", "dtype", "max_pixels", "remote_code"):
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                option = name.replace("_", "-")
                raise typer.BadParameter(f"--{option} is about a model: give --model PATH")
        raise typer.Exit(health.doctor(store, as_json=as_json))
    code = health.examine_model(
        model,
        prm,
        engine=engine.value,
        device=device.value,
        dtype=dtype.value,
        max_pixels=max_pixels,
        remote_code=remote_code,
        as_json=as_json,
    )
    raise typer.Exit(code)


def gc(
    store: StoreOption = "runs",
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Leave alone what is younger: 12h, 7d.")
    ] = "1d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    drop_trainer_state: Annotated[
        bool,
        typer.Option(
            "--drop-trainer-state",
            help="Also delete the optimizer state of finished runs' iterations, except the last one's.",
        ),
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete what no run refers to and what killed processes left in a store."""
    from mstarctl import keep

    keep.gc(
        store,
        older_than,
        dry_run=dry_run,
        yes=yes,
        drop_trainer_state=drop_trainer_state,
        as_json=output is Output.JSON,
    )
