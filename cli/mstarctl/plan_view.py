"""How a plan is printed: a table by stage, what it rests on, and what is wrong; or JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from mstar.estimate.bill import Bucket, StageCost, StepCost
from mstar.estimate.planning import Given, RunPlan
from mstar.estimate.ranges import ZERO, Range
from mstarctl import show

BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
MADE_UP = "assumed"
WIDE = 140


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A fact: what it is, its value, where it is from and how to change it."""

    what: str
    value: str
    source: str
    change: str


def sources(given: Given, *, gpu_named: bool) -> list[Source]:
    """The facts of data, models and device."""
    counts = ", ".join(f"{split} {count:,}" for split, count in given.data.queries.items())
    found = [Source(what="queries", value=counts, source=given.data.source, change="--queries")]
    for key, facts in given.models.items():
        option = "--parameters" if key == "model" else "--teacher-parameters"
        value = f"{facts.name}, {count(facts.parameters)} parameters"
        found.append(Source(what=key, value=value, source=facts.source, change=option))
        found += _images(given, key)
    gpu, measured = given.gpu, given.calibration
    value = f"{gpu.name}, {gpu.memory / 1e9:.0f} GB"
    if gpu.arithmetic and measured is None:
        value += f", {gpu.arithmetic / 1e12:.0f} TFLOP/s, {gpu.bandwidth / 1e12:.2f} TB/s"
    source = gpu.source if gpu_named or measured else f"{MADE_UP}: nobody named one"
    found.append(Source(what="device", value=value, source=source, change="--gpu"))
    price = "unknown, so there is no cost" if given.price is None else f"{given.price:g}"
    found.append(
        Source(
            what="price of a GPU-hour",
            value=price,
            source="nobody said it" if given.price is None else "given",
            change="--price",
        )
    )
    return found


def _images(given: Given, key: str) -> list[Source]:
    """Where the number of tokens of an image is from, when it is no assumption of the table."""
    what, change = f"{key}: tokens an image", "--assume image_tokens=…"
    if given.numbers.is_said("image_tokens"):
        return []
    if given.calibration and key == "model":
        value, source = Range.of(given.calibration.image_tokens), "measured"
    elif key in given.images:
        value, source = given.images[key], "the sizes of the first images"
    elif found := given.models[key].image_tokens:
        value, source = found, given.models[key].source
    else:
        return []
    return [Source(what=what, value=plain(value), source=source, change=change)]


def as_text(given: Given, plan: RunPlan, facts: Sequence[Source], *, steps: bool) -> None:
    """Tables for people: the plan, its warnings, and everything that it rests on."""
    where = "on this machine" if given.local else "in a cluster"
    # Where nobody looks, there is no edge to keep to.
    out = show.output if show.output.is_terminal else Console(highlight=False, width=WIDE)
    out.print(f"[bold]{given.spec.name}[/] {where}: least to most of each", soft_wrap=True)
    hours = _hours(given)
    out.print(_table(plan, hours, priced=given.price is not None))
    out.print(_about(plan.stages[-1], hours), soft_wrap=True)
    if steps:
        out.print(_step_table(plan.steps, hours))
    adopted = plan.stages[-1].adopted
    out.print(_store_line(plan.bucket, given.quota, adopted), soft_wrap=True)
    for warning in plan.warnings:
        out.print(f"[yellow]warning[/] {_plain(warning)}", soft_wrap=True)
    for each in plan.verdicts:
        if each.fits:
            need, room = each.need.bytes, each.room
            out.print(
                f"fits: {_plain(each.need.who)}, {size(need)} of {size(room)} a device",
                soft_wrap=True,
            )
    out.print("\n[bold]What this rests on[/]")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("what", "value", "from", "change it by"):
        table.add_column(column, overflow="fold")
    for fact in facts:
        table.add_row(*map(_plain, (fact.what, fact.value, fact.source, fact.change)))
    for name, number in plan.assumptions.items():
        why = f"{number.source}: {number.why}" if number.why else number.source
        value = f"{plain(number.value)} {number.unit}"
        table.add_row(*map(_plain, (name, value, why, f"--assume {name}=…")))
    out.print(table)


def _hours(given: Given) -> str:
    """What a device's hours are called: not every machine that was measured has a GPU."""
    measured = given.calibration
    return "GPU-hours" if measured is None or measured.device.kind == "cuda" else "device-hours"


def _table(plan: RunPlan, hours: str, *, priced: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage")
    heads = [
        "steps",
        "rows",
        "tokens",
        hours,
        "wall time",
        "stored",
        *(["cost"] if priced else []),
    ]
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    for stage in plan.stages:
        table.add_row(*_cells(stage, priced=priced), style="bold" if stage.name == "all" else None)
    return table


def _about(whole: StageCost, hours: str) -> str:
    """The middle of the ranges of a whole run."""
    said = [f"{_number(whole.gpu_hours.middle)} {hours}", f"{_time(whole.wall.middle)} of time"]
    if whole.cost is not None:
        said.append(f"a cost of {_number(whole.cost.middle)}")
    return f"in the middle of it all: {', '.join(said)}"


def _cells(stage: StageCost, *, priced: bool) -> list[str]:
    steps = f"{stage.steps}"
    if stage.adopted:
        steps += f" ({stage.adopted} there)"
    cost = [plain(stage.cost)] if priced and stage.cost is not None else []
    return [
        stage.name, steps, counted(stage.rows), counted(stage.tokens), plain(stage.gpu_hours),
        lasting(stage.wall), size(stage.kept), *cost,
    ]  # fmt: skip


def _step_table(steps: Sequence[StepCost], hours: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("step")
    for head in ("rows", hours, "wall time", "stored"):
        table.add_column(head, justify="right")
    for step in steps:
        if step.work.adopted:
            table.add_row(step.work.name, "there already", "0", "0", "0")
            continue
        table.add_row(
            step.work.name,
            counted(step.work.rows),
            plain(step.held / 3600.0),
            lasting(step.wall),
            size(step.kept),
        )
    return table


def _store_line(store: Bucket, quota: float | None, adopted: int) -> str:
    said = (
        f"the store: {size(store.peak)} at its largest ({size(store.inputs)} of data and models, {size(store.steps)} "
        f"of steps, {size(store.interim)} of a checkpoint inside a step)"
    )
    if adopted:
        said += f", without the {adopted} steps that are there already"
    if store.droppable.high:
        said += f"; {size(store.swept)} after mstarctl gc --drop-trainer-state"
    if quota is not None:
        said += f"; the quota is {size(Range.of(quota))}"
    return said


def as_json(given: Given, plan: RunPlan, facts: Sequence[Source]) -> None:
    """Everything, with seconds, hours and bytes as numbers."""
    body: dict[str, Any] = {
        "run": given.spec.name,
        "where": "local" if given.local else "cluster",
        "stages": [asdict(stage) for stage in plan.stages],
        "steps": [
            {
                "step": step.work.name,
                "stage": step.work.stage,
                "id": step.work.identity,
                "adopted": step.work.adopted,
                "rows": asdict(step.work.rows),
                "device_seconds": asdict(step.device),
                "gpu_hours": asdict(step.held / 3600.0),
                "wall": asdict(step.wall),
                "stored": asdict(step.kept),
            }
            for step in plan.steps
        ],
        "store": asdict(plan.bucket)
        | {"peak": asdict(plan.bucket.peak), "swept": asdict(plan.bucket.swept)},
        "memory": [
            {
                "who": each.need.who,
                "fits": each.fits,
                "bytes": asdict(each.need.bytes),
                "parts": {name: asdict(part) for name, part in each.need.parts.items()},
                "room": asdict(each.room),
                "advice": list(each.advice),
            }
            for each in plan.verdicts
        ],
        "warnings": list(plan.warnings),
        "facts": [asdict(fact) for fact in facts],
        "assumptions": {name: asdict(number) for name, number in plan.assumptions.items()},
    }
    typer.echo(json.dumps(body, indent=1))


def plain(value: Range) -> str:
    """A range of numbers, with as many digits as mean something."""
    return _joined(value, _number)


def counted(value: Range) -> str:
    """A range of counts: 3.1k, 2.4M."""
    return "–" if value == ZERO else _joined(value, count)


def lasting(value: Range) -> str:
    """A range of seconds, as a person says them."""
    return "0" if value == ZERO else _joined(value, _time)


def size(value: Range) -> str:
    """A range of bytes, decimal."""
    return "0" if value == ZERO else _joined(value, _bytes)


def count(value: float) -> str:
    """A count with three digits and a letter."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.0f}"


def _joined(value: Range, form: Callable[[float], str]) -> str:
    low, high = form(value.low), form(value.high)
    if low == high:
        return low
    unit = high.lstrip("0123456789.,")
    if (
        unit
        and " " not in unit.strip()
        and low.endswith(unit)
        and low.count(" ") == high.count(" ") <= 1
    ):
        low = low.removesuffix(unit)
    return f"{low}–{high}"


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _time(value: float) -> str:
    days, rest = divmod(value, 86_400)
    if days:
        return f"{int(days)} d {int(rest / 3600)} h"
    hours, rest = divmod(rest, 3600)
    if hours:
        return f"{int(hours)} h {int(rest / 60)} m"
    minutes, seconds = divmod(rest, 60)
    return f"{int(minutes)} m {int(seconds)} s" if minutes else f"{seconds:.2g} s"


def _bytes(value: float) -> str:
    for unit, name in BYTES:
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.0f} bytes"


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    return text.replace("[", r"\[")
