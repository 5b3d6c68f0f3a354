"""``gc``: what runs still need, what may go, and letting it go."""

import json
import re
import sys
import time
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer

from mstar.analysis.making import noted_steps
from mstar.errors import IntegrityError, NotFound, SpecError
from mstar.history import Entry, Run, done_step, load_history, load_run, run_names
from mstar.recipe import Done, follow, recipe
from mstar.storage import keys
from mstar.storage.lease import holder, holds
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import read_manifest, resolve
from mstar.storage.retention import Plan, Roots
from mstar.storage.store import Store
from mstar.storage.sweep import Sweep, survey, sweep
from mstar.tasks import task_hash
from mstarctl import show, work

LEASE_SECONDS = 3600.0
"""A controller that was heard of within so long counts as at work, though its lease is long over: clocks differ."""

SHOWN = 20
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TRAIN = re.compile(r"iter-\d+/train")


def gc(
    url: str,
    older_than: str,
    *,
    dry_run: bool,
    yes: bool,
    drop_trainer_state: bool,
    as_json: bool,
) -> None:
    """Say what nothing refers to and, unless it is a dry run or somebody says no, delete it."""
    store = work.existing_store(url)
    before = time.time() - seconds(older_than)
    needs = Needs(drop_trainer_state=drop_trainer_state)
    with show.working("looking at what is stored", as_json=as_json):
        found = survey(store, needs, before=before)
    if not (dry_run or yes or sys.stdin.isatty()):
        raise typer.BadParameter("nobody is there to ask: say --yes to delete or --dry-run to look")
    if not as_json:
        typer.echo(describe(found, before))
    empty = not (found.plan.artifacts or found.plan.litter or found.remnants)
    go = not (dry_run or empty) and (yes or typer.confirm("Delete all this?"))
    if go:
        with show.working("deleting", as_json=as_json):
            found = sweep(store, found, needs, before=before)
    if as_json:
        typer.echo(json.dumps(body(found, deleted=go), indent=1))
    elif go:
        typer.echo(f"deleted {in_words(total(found.plan))}")


class Needs:
    """What the runs in a store need; manifests, which never change, are read once."""

    def __init__(self, *, drop_trainer_state: bool = False) -> None:
        self._drop = drop_trainer_state
        self._known: dict[Ref, Manifest] = {}

    def __call__(self, store: Store) -> Roots:
        """All runs' needs now; ``IntegrityError`` when one of them cannot be understood."""
        referenced, pending, held = set[str](), set[str](), set[str]()
        finished, spent, needed = set[str](), set[str](), set[str]()
        live = False
        for name in run_names(store):
            try:
                run = load_run(store, name)
                history = load_history(store, name)
                noted = noted_steps(store, name)
                to_come = self._to_come(store, run, history)
            except (IntegrityError, NotFound, SpecError) as error:
                raise IntegrityError(
                    f"cannot tell what run {name!r} needs, so nothing is deleted: {error}. Mend the run, or delete "
                    f"all below {keys.run(name)}/ in {store.url} if it is of no more use"
                ) from error
            steps = [_folder(entry.ref) for entry in history]
            referenced |= {*map(_folder, run.inputs.refs), *map(_folder, noted), *steps}
            trained = [_folder(e.ref) for e in history if _TRAIN.fullmatch(e.name)]
            if to_come:
                pending |= set(to_come)
                needed |= set(steps)
            else:
                finished.add(name)
                spent |= set(trained[:-1])
                needed |= set(trained[-1:])
            last = holder(store, name)
            if last and holds(last, now=time.time(), ttl=LEASE_SECONDS):
                held |= set(to_come)
                live = True
        return Roots(
            referenced=frozenset(referenced),
            pending=frozenset(pending),
            held=frozenset(held),
            spent=frozenset(spent - needed if self._drop else ()),
            finished=frozenset(finished),
            live=live,
        )

    def _to_come(self, store: Store, run: Run, history: list[Entry]) -> list[str]:
        """The steps after the history: those that are committed already, and the first that is not."""
        program = recipe(run.spec, run.inputs)
        step = next(program, None)
        for entry in history:
            step = follow(program, step, self._done(store, entry))
        found = []
        while step is not None:
            identity = task_hash(step.task)
            found.append(keys.artifact("step", identity))
            manifest = read_manifest(store, "step", identity)
            if manifest is None:
                break
            step = follow(program, step, done_step(step, manifest))
        return found

    def _done(self, store: Store, entry: Entry) -> Done:
        if entry.ref not in self._known:
            self._known[entry.ref] = resolve(store, entry.ref)
        return Done(name=entry.name, ref=entry.ref, results=self._known[entry.ref].results)


def seconds(age: str) -> float:
    """An age such as ``7d``, ``12h`` or ``0s`` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", age.strip())
    if not found:
        raise typer.BadParameter(f"{age!r} is no age: expected a number and s, m, h, d or w, as 7d")
    return float(found[1]) * _UNITS[found[2]]


def describe(found: Sweep, before: float) -> str:
    """What would go, for a person."""
    since = datetime.fromtimestamp(before, UTC)
    lines = [f"what was touched since {since:%Y-%m-%d %H:%M} UTC is left alone"]
    plan = found.plan
    if plan.artifacts:
        count = len(plan.artifacts)
        lines.append(f"{count} artifacts that no run refers to:")
        lines += [
            f"  {each.folder}  {in_words(each.size)}{'' if each.committed else ', unfinished'}"
            for each in plan.artifacts[:SHOWN]
        ]
        lines += [f"  and {count - SHOWN} more (-o json lists all)"] if count > SHOWN else []
    sizes: dict[str, list[int]] = defaultdict(list)
    for litter in plan.litter:
        sizes[litter.why].append(litter.size)
    for why, each in sorted(sizes.items()):
        lines.append(f"{why}: {len(each)} keys, {in_words(sum(each))}")
    if found.remnants:
        lines.append(f"unfinished uploads, temporary files, empty folders: {len(found.remnants)}")
    if plan.unknown:
        lines.append(f"left alone, for nothing here knows them: {len(plan.unknown)} keys")
    if len(lines) == 1 + bool(plan.unknown):
        return "nothing to delete"
    return "\n".join([*lines, f"{in_words(total(plan))} in all"])


def body(found: Sweep, *, deleted: bool) -> dict[str, Any]:
    """The same for programs."""
    return {
        "deleted": deleted,
        "bytes": total(found.plan),
        "artifacts": [
            {"folder": each.folder, "committed": each.committed, "bytes": each.size}
            for each in found.plan.artifacts
        ],
        "litter": [asdict(each) for each in found.plan.litter],
        "remnants": [{"name": each.name, "since": each.since} for each in found.remnants],
        "unknown": list(found.plan.unknown),
    }


def in_words(size: int) -> str:
    """Bytes for a person: 1.5 GiB."""
    number, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{number:.0f} bytes" if units[0] == "bytes" else f"{number:.1f} {units[0]}"


def total(plan: Plan) -> int:
    """Bytes of all that goes; what unfinished uploads take is not known."""
    return sum(each.size for each in plan.artifacts) + sum(each.size for each in plan.litter)


def _folder(ref: Ref) -> str:
    return keys.artifact(ref.kind, ref.id)
