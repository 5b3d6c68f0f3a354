"""Run every benchmark and write docs/benchmarks.md: ``make bench``.

vLLM's pins do not fit this environment's: ``VLLM_PYTHON`` names the Python of one that has vLLM, mstar and nothing else
to do (docs/engines.md, Install); without it the page says that vLLM was not measured.
"""

import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.overhead import measure as measure_overhead

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `make bench`. Each figure and the one beside it come from the same run, models on one thread. Medians.

No GPU was at hand: `python -m bench.gpu` (one GPU, 2B's size with random weights, ten minutes) has no figures yet.
"""
COLUMNS = "| what | measured | beside it | wanted |\n|---|---|---|---|"
STARTS = 10
REPEATS = 3
DEMO = ROOT / "runs" / "demo" / "store"


def run(module: str, *arguments: str, python: str = sys.executable) -> Any:
    """The JSON that a benchmark prints."""
    print(f"bench: {module} ...", file=sys.stderr)
    command = [python, "-W", "ignore", "-m", module, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "cli")])
    found = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    text = found.stdout.decode()
    return json.loads(text[text.index("{") :])  # libraries may greet first


def start_up() -> tuple[float, float]:
    """Median seconds of ``mstarctl --help`` and of Python doing nothing, taken in turns."""
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(STARTS):
        for command, times in (
            (["-m", "mstarctl.main", "--help"], ours),
            (["-c", "pass"], bare),
        ):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
    return statistics.median(ours), statistics.median(bare)


def rows() -> list[tuple[str, str, str, str]]:
    """Each benchmark: what, measured, beside it, wanted."""
    sampling = [run("bench.sampling") for _ in range(REPEATS)]
    training = [run("bench.training") for _ in range(REPEATS)]
    core = run("bench.core")
    ours, bare = start_up()
    found = [
        _ratio("sampling against a bare `generate` loop at its best batch size", sampling, 0.9),
        *_vllm(),
        _ratio("training against a bare accelerate loop on the same batches", training, 0.95),
        *_scoring(),
        (
            "checking answers, one core",
            f"{core['answers_per_second']:,} answers/s",
            "",
            "at least 20,000",
        ),
    ]
    found += _answers()
    for name, (small, large) in core["selection"].items():
        memory = (
            f"peak memory {large['peak_rise_mib']:.1f} MiB above that of {small['responses']:,}"
        )
        found.append(
            (
                f"selection ({name}) over {large['responses']:,} responses",
                f"{large['seconds']:.1f} s",
                memory,
                "bounded",
            )
        )
    found.append(
        ("`mstarctl --help`", f"{ours:.2f} s", f"Python alone: {bare:.2f} s", "at most 0.3 s")
    )
    found += _import()
    found += _cluster()
    found += _controller()
    found += _storage()
    if DEMO.is_dir():
        over = measure_overhead(DEMO, ["continuous", "mstar"])
        found.append(
            (
                "demo: time outside the stages' own work",
                f"{over['ratio']:.1%}",
                "of the steps' wall time",
                "at most 10 %",
            )
        )
    return found


def _vllm() -> list[tuple[str, str, str, str]]:
    what = "sampling with vLLM (on these cores) against bare `LLM.generate` on the same prompts"
    python = os.environ.get("VLLM_PYTHON")
    if not python:
        return [
            (what, "not measured", "`VLLM_PYTHON` names a Python that has it", "at least × 0.95")
        ]
    return [_ratio(what, [run("bench.vllm", python=python) for _ in range(REPEATS)], 0.95)]


def _scoring() -> list[tuple[str, str, str, str]]:
    found = []
    for answer in (80, 160):
        results = [run("bench.scoring", "--answer", str(answer)) for _ in range(REPEATS)]
        first = results[0]
        prompt, samples = first["prompt tokens"], first["responses a prompt"]
        what = f"scoring {samples} responses of {answer} tokens to prompts of {prompt}, shared, against each alone"
        found.append(_ratio(what, results, 3))
    return found


def _answers() -> list[tuple[str, str, str, str]]:
    result = run("bench.answers")
    hanging = result["hanging"]
    found = [
        (
            f"checking answers, math-verify last, {mixed['share_of_expressions']:.0%} expressions, workers: "
            + str(mixed["workers"]),
            f"{mixed['answers_per_second']:,} answers/s",
            f"{mixed['asked']:,} questions asked, {mixed['ms_a_question']:.0f} ms each",
            "",
        )
        for mixed in result["throughput"]
    ]
    return [
        *found,
        (
            f"a hanging answer, deadline {hanging['timeout']:g} s",
            f"undecided after {hanging['until_undecided']:.2f} s",
            f"the next answer, from a new worker: {hanging['next_answer_from_a_new_worker']:.1f} s",
            "the deadline and 0.5 s",
        ),
    ]


def _import() -> list[tuple[str, str, str, str]]:
    found = run("bench.data_import")
    rows = f"{found['rows']:,} rows shaped like MathV360K's, {found['images']:,} images"
    bare = f"bare {found['bare_seconds']:.0f} s, which is {found['bare_cpu_seconds']:.0f} s of one core"
    return [
        (
            f"importing {rows}, {found['workers']} processes, against decoding each once and writing it",
            f"× {found['share_of_bare']}",
            f"{found['seconds']:.0f} s, {bare}; peak {found['peak_mib']:.0f} MiB",
            "as fast as one core decodes",
        )
    ]


def _cluster() -> list[tuple[str, str, str, str]]:
    cluster = run("bench.cluster")
    return [
        (
            f"rendering {cluster['objects']:,} objects of a run",
            f"{cluster['render_seconds']:.2f} s",
            "",
            "1,000 steps in at most 1 s",
        ),
        (
            "`mstarctl run --dry-run`",
            f"{cluster['dry_run']:.2f} s",
            f"Python alone: {cluster['python']:.2f} s",
            "at most 2 s more",
        ),
    ]


def _controller() -> list[tuple[str, str, str, str]]:
    result = run("bench.controller")
    short, long = result["short"], result["long"]
    lengths = f"{short['steps']} and {long['steps']:,} steps"
    return [
        (
            "controller: from a step's commit to the next Job (API server and store of this machine)",
            f"{long['gap'] * 1000:.0f} ms",
            f"slowest of {long['steps']:,}: {long['gap_worst'] * 1000:.0f} ms",
            "at most 2 s",
        ),
        (
            f"controller: peak memory over {lengths}",
            f"{short['memory_mib']:.0f} and {long['memory_mib']:.0f} MiB",
            "here all finished Jobs and pods stay; a cluster drops them after a day",
            "at most 150 MiB",
        ),
        (
            f"controller: API calls a step over {lengths}",
            f"{short['calls_a_step']:.2f} and {long['calls_a_step']:.2f}",
            ", ".join(f"{what} {count:g}" for what, count in sorted(long["calls"].items())),
            "constant",
        ),
    ]


def _storage() -> list[tuple[str, str, str, str]]:
    result = run("bench.storage")
    words = {"large": "one file of 256 MiB", "small": "200 files of 64 KiB"}
    found = []
    for what, words_for in words.items():
        for way in ("up", "down"):
            measured = result[f"{what} {way}"]
            lowest, highest = measured["spread"]
            found.append(
                (
                    f"storage {way}, {words_for}, with sha256, against bare boto3 ({result['server']} on these cores)",
                    f"× {measured['ratio']} ({lowest} to {highest} over the rounds)",
                    ", ".join(f"{name} {speed:,}" for name, speed in measured["MiB/s"].items())
                    + " MiB/s",
                    "at least × 0.9",
                )
            )
    return found


def _ratio(what: str, results: list[dict[str, Any]], wanted: float) -> tuple[str, str, str, str]:
    ratios = sorted(result["ratio"] for result in results)
    middle = sorted(results, key=lambda result: result["ratio"])[len(results) // 2]
    speeds = ", ".join(f"{name} {speed:,}" for name, speed in middle["measured"].items())
    spread = f"{ratios[0]} to {ratios[-1]} over {len(ratios)} runs"
    return (
        what,
        f"× {statistics.median(ratios)} ({spread})",
        f"{speeds} {middle['unit']}",
        f"at least × {wanted}",
    )


def machine() -> str:
    """What this was measured on, without its name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    load = os.getloadavg()[0]
    wanted = ("torch", "transformers", "accelerate")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in wanted)
    python = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), load {load:.1f} at the end, {python}, {packages}"


def main() -> None:
    """Measure, write the page, and print it."""
    body = "\n".join("| " + " | ".join(row) + " |" for row in rows())
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    page = f"{HEAD}\n{today}, {machine()}.\n\n{COLUMNS}\n{body}\n"
    TARGET.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
