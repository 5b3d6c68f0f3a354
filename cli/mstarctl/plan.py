"""``plan``: what a run will take, from stated assumptions or from a measurement, before anything runs."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mstar.errors import MstarError, SpecError
from mstarctl.options import Output, OutputOption

if TYPE_CHECKING:
    from mstar.config import RunSpec
    from mstar.estimate.calibration import Calibration
    from mstar.estimate.folders import DataFacts
    from mstar.plan import Inputs
    from mstar.recipe import Done, Step
    from mstar.storage.store import Store
    from mstarctl.plan_said import Said


def plan(
    file: Annotated[Path, typer.Option("--file", "-f", help="The run's spec, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the spec: a.b=c."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Plan for this machine: one device, step after step.")
    ] = False,
    gpu: Annotated[
        str | None, typer.Option(help="The GPU: h100, a100-80, l40s, …; h100 without.")
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME=VALUE",
            help="A YAML file of assumptions or a saved calibration; or one assumption: right=0.4, right=[0.3,0.5].",
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="Of a GPU-hour; without it there is no cost.")
    ] = None,
    quota: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Warn when the bucket outgrows it: 10TB.")
    ] = None,
    queries: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPLIT=N", help="Queries of a split, where the data is not there yet."
        ),
    ] = None,
    parameters: Annotated[
        str | None, typer.Option(metavar="N", help="The model's, where it is not there: 8.5e9.")
    ] = None,
    teacher_parameters: Annotated[
        str | None, typer.Option(metavar="N", help="The same of the teacher.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Measure this machine first: about two minutes, beside loading."
        ),
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the measurement, for --assume.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", help="Where to look for steps that are committed already."),
    ] = None,
    no_store: Annotated[
        bool, typer.Option("--no-store", help="Look into no store: count every step.")
    ] = False,
    steps: Annotated[bool, typer.Option("--steps", help="Also a line for each step.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say what a run will take before anything runs: GPU-hours, time, bytes, cost, and what cannot fit."""
    from mstar.estimate.calibration import check_fits, save_calibration
    from mstar.estimate.folders import image_tokens, read_data, read_model
    from mstar.estimate.planning import Given, make_plan
    from mstarctl import plan_view, show
    from mstarctl.inputs import read_spec
    from mstarctl.plan_said import Said

    as_json = output is Output.JSON
    if save and not calibrate:
        raise typer.BadParameter("--save keeps what --calibrate measures; give both")
    if no_store and store:
        raise typer.BadParameter("--no-store and --store contradict each other")
    spec = read_spec(file, overrides or [], as_json=as_json)
    # What is said is read before what is there: a slip of the pen is told at once.
    said = Said(assume or [])
    device, paid, room = said.device(gpu), said.price(price), said.quota(quota)
    counts = _queries(queries or [])
    models = {"model": read_model(spec.model, "model", _count(parameters, "--parameters"))}
    if spec.teacher:
        own = _count(teacher_parameters, "--teacher-parameters")
        models["teacher"] = read_model(spec.teacher, "teacher", own)
    elif teacher_parameters:
        raise SpecError("--teacher-parameters is given, but the spec names no teacher")
    data = read_data(spec, counts)
    if calibrate:
        said.calibration = _measured(spec, said, as_json=as_json)
        said.source = "measured now"
        device = said.device(gpu)
        if save:
            save_calibration(said.calibration, save)
    if said.calibration:
        check_fits(said.calibration, spec, models["model"], said.source)
    paths = {"model": spec.model, "teacher": spec.teacher}
    seen = {
        key: image_tokens(path, data.images, spec.execution.max_pixels)
        for key, path in paths.items()
        if path
    }
    with show.working("looking at the store", as_json=as_json):
        inputs, known, notes = _stored(spec, store, data, look=not no_store)
    given = Given(
        spec=spec,
        data=data,
        inputs=inputs,
        models=models,
        images={key: size for key, size in seen.items() if size is not None},
        gpu=device,
        numbers=said.numbers,
        calibration=said.calibration,
        local=local,
        price=paid,
        quota=room,
        known=known,
    )
    found = make_plan(given)
    sources = plan_view.sources(given, gpu_named=said.gpu is not None or gpu is not None)
    found = replace(found, warnings=(*found.warnings, *notes))
    if as_json:
        plan_view.as_json(given, found, sources)
    else:
        plan_view.as_text(given, found, sources, steps=steps)


def _count(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d+)?)([mb]?)", text.strip().lower())
    value = float(match[1]) * {"": 1.0, "m": 1e6, "b": 1e9}[match[2]] if match else 0.0
    if value < 1:
        raise SpecError(
            f"{option} {text!r}: expected a number of parameters, such as 8.5e9 or 8.5B"
        )
    return value


def _queries(given: Iterable[str]) -> dict[str, int]:
    found = {}
    for each in given:
        split, _, count = each.partition("=")
        if not split or not count.isdecimal() or int(count) < 1:
            raise SpecError(f"--queries {each!r}: expected SPLIT=N, such as train=180000")
        found[split] = int(count)
    return found


def _measured(spec: "RunSpec", said: "Said", *, as_json: bool) -> "Calibration":
    from mstar.estimate.measuring import calibrate
    from mstarctl import show

    if said.calibration:
        raise SpecError(
            f"--calibrate and the calibration {said.source} contradict each other; give one"
        )
    with show.working("measuring this machine", as_json=as_json):
        return calibrate(spec)


def _stored(
    spec: "RunSpec", store: str | None, data: "DataFacts", *, look: bool
) -> "tuple[Inputs, Callable[[Step], Done | None], tuple[str, ...]]":
    """Inputs, what asks for committed steps, and what a person should know of it."""
    from mstar.estimate.committed import committed, made_up_inputs, stored_inputs
    from mstar.recipe import nothing_known

    made_up = made_up_inputs(spec, data.queries)
    if not look:
        return made_up, nothing_known, ()
    try:
        opened = _open(spec, store)
        inputs = stored_inputs(opened, spec, data.queries) if opened else None
    except MstarError as error:
        if store is not None:
            raise
        note = f"the store cannot be read, so every step is counted as to be made ({error})"
        return made_up, nothing_known, (note,)
    if opened is None or inputs is None:
        return made_up, nothing_known, ()
    if dict(inputs.queries) != dict(data.queries):
        counts = ", ".join(f"{count:,} {split}" for split, count in inputs.queries.items())
        raise SpecError(
            f"run {spec.name} is stored in {opened.url} with other data ({counts}); plan it with that, or give the "
            "new run another name"
        )
    return inputs, committed(opened), ()


def _open(spec: "RunSpec", store: str | None) -> "Store | None":
    """The store to look into; None for a folder of the spec's that is not there yet."""
    from mstar.storage.open import open_store
    from mstarctl import work

    if store is not None:
        return work.existing_store(store)
    if "://" not in spec.store and not Path(spec.store).is_dir():
        return None
    return open_store(spec.store)
