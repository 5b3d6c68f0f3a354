"""What the commands about runs do."""

import importlib.util
import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml

from mstar.config import RunSpec, read_yaml
from mstar.controller.loop import Controller, request_cancel, withdraw_cancel
from mstar.controller.prepare import check_inputs, prepare
from mstar.controller.status import ENDED, Phase, mark_cancelled, overview
from mstar.equivalence.pool import require_math_verify
from mstar.errors import MissingDependency, NotFound, SpecError, StorageError
from mstar.executors.local import LocalExecutor
from mstar.history import Run, load_history, load_run, run_names
from mstar.mistakes import nearest
from mstar.recipe import planned_names
from mstar.storage import keys
from mstar.storage.open import open_store
from mstar.storage.store import Store
from mstar.tracking.packages import to_tell
from mstarctl import show
from mstarctl.inputs import read_spec
from mstarctl.options import INTERRUPTED
from mstarctl.telling import telling

if TYPE_CHECKING:
    from mstar.executors.k8s.api import Api


def run(file: Path, overrides: list[str], *, dry_run: bool, fresh: bool, as_json: bool) -> None:
    """Check, prepare and advance a run on this machine."""
    spec = read_spec(file, overrides, fresh=fresh, as_json=as_json)
    _check_packages(spec)
    to_tell(spec.tracking)
    if dry_run:
        open_store(spec.store)  # contacts nothing: only an address that is none is refused
        show.plan(spec, check_inputs(spec), as_json=as_json)
        return
    store, prepared = _prepared(spec, as_json=as_json)
    withdraw_cancel(store, spec.name)
    advance(store, prepared, as_json=as_json)


def upload(file: Path, overrides: list[str], *, defaults: Path | None, as_json: bool) -> None:
    """Check and store a run, and start nothing."""
    from mstarctl import objects

    base = objects.read_defaults(defaults)
    spec = read_spec(file, overrides, as_json=as_json)
    if spec.store.startswith("s3://"):
        from mstarctl import cluster

        block = cluster.offline(spec, base)
        store, _ = _prepared(spec, as_json=as_json)
        cluster.note_offline(store, spec, block)
    else:
        store, _ = _prepared(spec, as_json=as_json)
    text = f"run {spec.name} is stored in {store.url}; nothing was started"
    show.message(text, {"run": spec.name, "store": store.url}, as_json=as_json)


def resume(
    url: str,
    name: str,
    *,
    local: bool | None,
    wait: bool,
    context: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Advance a stored run where it was last started, or where it is asked to be."""
    store = existing_store(url)
    stored = load_run(store, name)
    if local is None:
        local = store.size(keys.place(name)) is None
    if not local:
        from mstarctl import cluster

        target = cluster.Target(context=context, namespace=namespace)
        cluster.resume(store, name, target, wait=wait, as_json=as_json)
        return
    to_tell(stored.spec.tracking)
    withdraw_cancel(store, name)
    advance(store, stored, as_json=as_json)


def wait(url: str, name: str, *, context: str | None, namespace: str | None, as_json: bool) -> None:
    """Follow a run to its end."""
    from mstarctl.following import follow

    store = existing_store(url)
    load_run(store, name)
    follow(store, name, _api(store, name, context, namespace), as_json=as_json)


def _check_packages(spec: RunSpec) -> None:
    """What a run here would find missing only after hours: the engine, DeepSpeed, and math-verify."""
    execution = spec.execution
    if spec.answers.math_verify:
        require_math_verify()
    needed = {"vllm": execution.engine == "vllm", "deepspeed": execution.deepspeed is not None}
    pages = {"vllm": "engines", "deepspeed": "training"}
    for package, asked in needed.items():
        if asked and importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"execution asks for {package}, which is not installed here; install it "
                f"(docs/{pages[package]}.md), or leave it out of execution"
            )


def _prepared(spec: RunSpec, *, as_json: bool) -> tuple[Store, Run]:
    store = open_store(spec.store)
    with show.working(f"checking {spec.name}", as_json=as_json):
        return store, prepare(store, spec)


def _api(store: Store, name: str, context: str | None, namespace: str | None) -> "Api | None":
    """The cluster that a run was started in, if it was and can be asked."""
    if store.size(keys.place(name)) is None:
        return None
    from mstarctl import cluster

    return cluster.reachable(store, name, cluster.Target(context=context, namespace=namespace))


def advance(store: Store, run_: Run, *, as_json: bool) -> None:
    """Run to the end with progress on the terminal, then say how it ended."""
    executor = LocalExecutor()
    try:
        with (
            show.reporter(as_json=as_json) as reporter,
            telling(store, run_, reporter) as told,
        ):
            Controller(store, executor, run_, told).advance()
    except KeyboardInterrupt:
        typer.echo(
            f"\ninterrupted; go on with: mstarctl resume {run_.name} --store {shlex.quote(store.url)}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    finally:
        executor.close()
    show.overview(overview(store, run_.name, time.time()), as_json=as_json)


def cancel(
    url: str, name: str, *, context: str | None, namespace: str | None, as_json: bool
) -> None:
    """Leave a request that the controller sees within a second; in a cluster, see that nothing is left."""
    store = existing_store(url)
    before = overview(store, name, time.time())
    api = _api(store, name, context, namespace)
    if before.status.phase is Phase.FINISHED:
        left = ""
        if api:
            from mstarctl import cluster

            cluster.clear(store, name, api, as_json=as_json)
            left = f"; it has no Job and no pod left in namespace {api.namespace}"
        show.message(
            f"run {name} has finished; there is nothing to cancel{left}",
            {"run": name, "cancelled": False},
            as_json=as_json,
        )
        return
    if api:
        from mstarctl import cluster

        cluster.cancel(store, name, api, as_json=as_json)
        return
    request_cancel(store, name, time.time())
    if before.controller == "none":
        if before.status.phase not in ENDED:
            mark_cancelled(store, name, before.status.step)
        said = f"run {name} is cancelled; nobody was working on it"
    else:
        said = f"run {name} is asked to stop; its controller ({before.controller}) stops within seconds"
    text = f"{said}. Go on with: mstarctl resume {name} --store {shlex.quote(url)}"
    show.message(text, {"run": name, "cancelled": True}, as_json=as_json)


def status(
    url: str, name: str | None, *, context: str | None, namespace: str | None, as_json: bool
) -> None:
    """One run in words, or a line for each."""
    store = existing_store(url)
    if name is None:
        show.overviews(
            [overview(store, each, time.time()) for each in run_names(store)], as_json=as_json
        )
        return
    found = overview(store, name, time.time())
    if found.controller == "none" and (api := _api(store, name, context, namespace)):
        from mstarctl.following import explained

        found = explained(store, name, api)
    show.overview(found, as_json=as_json, entries=load_history(store, name))


def logs(
    url: str,
    name: str,
    step: str | None,
    *,
    context: str | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Stored logs in the order of the steps; of one step when it is named, also while its pods are at work."""
    from mstar.analysis.making import STEP as ANALYSIS

    store = existing_store(url)
    run = load_run(store, name)
    if step and step not in (names := [*planned_names(run.spec, run.inputs), ANALYSIS]):
        raise NotFound(f"run {name} has no step {step}{nearest(step, names, 'its steps are')}")
    wanted = step.replace("/", "-") if step else None
    found = []
    for key in store.list(f"{keys.run(name)}/logs"):
        label = key.rpartition("/")[2].removesuffix(".log")
        if wanted is None or label.partition("-")[2].rpartition(".")[0] == wanted:
            found.append((label, store.get(key).decode(errors="replace")))
    if step and (api := _api(store, name, context, namespace)):
        from mstarctl import cluster

        found += cluster.live_logs(store, name, step, api)
    if not found:
        known = sorted({key.rpartition("/")[2] for key in store.list(f"{keys.run(name)}/logs")})
        hint = f"; logs there: {', '.join(known[:12])}" if known else ""
        raise NotFound(
            f"no log of {step or 'any step'} in run {name}{hint} (a step's log is kept when it ends)"
        )
    if as_json:
        body = [{"log": label, "text": text} for label, text in found]
        typer.echo(json.dumps(body, indent=1))
        return
    for label, text in found:
        if len(found) > 1:
            typer.echo(f"==> {label} <==")
        typer.echo(text, nl=False)


def report(url: str, names: list[str], out: Path, *, as_json: bool) -> None:
    """Write the HTML page."""
    from mstar.report.page import write_report

    store = existing_store(url)
    for name in names:
        load_run(store, name)
    write_report(store, names, out, now=time.time())
    show.message(f"wrote {out}", {"report": str(out)}, as_json=as_json)


def stage(name: str, file: Path, *, as_json: bool) -> None:
    """Run one task file to its commit."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from mstar.stages.run import parse_request, run_request

    request = parse_request(_read_task(file), str(file))
    if request.task.stage != name:
        raise SpecError(
            f"{file} holds a {request.task.stage} task; run `mstarctl stage {request.task.stage} --task {file}`"
        )
    tell: Callable[[int, int, str], None]
    with show.bar(name, as_json=as_json) as tell:
        manifest = run_request(request, tell)
    show.manifest(manifest, as_json=as_json)


def existing_store(url: str) -> Store:
    """The store at ``url``; a folder that is not there is a mistake, not an empty store."""
    store = open_store(url)
    if "://" not in url and not Path(url).is_dir():
        raise StorageError(
            f"no store at {url}: pass --store with the folder or s3:// address that the run was given"
        )
    return store


def _read_task(file: Path) -> Any:
    try:
        return read_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"no task file at {file}: pass its path with --task") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"cannot read the task file {file}: {error}") from None
