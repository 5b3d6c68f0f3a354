"""Which benchmarks there are, and where their published files lie below a folder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mstar.benchmarks.ai2d import AI2D, AI2D_NO_MASK
from mstar.benchmarks.m3cot import M3COT
from mstar.benchmarks.mathvista import MATHVISTA
from mstar.benchmarks.mmbench import MMBENCH, MMBENCH_R
from mstar.benchmarks.mmstar import MMSTAR, MMSTAR_R
from mstar.benchmarks.records import Benchmark
from mstar.errors import DataError, SpecError
from mstar.mistakes import nearest

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        MATHVISTA, M3COT, MMSTAR, MMSTAR_R, MMBENCH, MMBENCH_R, AI2D, AI2D_NO_MASK,
    )
}  # fmt: skip
PAPER = ("mathvista", "m3cot", "mmstar-r", "mmbench-r", "ai2d")
"""The five of the paper's tables."""

SHARED = ("test-", "test.", "val-")
"""How names begin that several data sets use."""

DEEPEST = 3
"""Folders below the given one in which a file is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A benchmark and the files that it is read from, in order."""

    benchmark: Benchmark
    files: tuple[Path, ...]


def find_benchmarks(names: Sequence[str]) -> tuple[Benchmark, ...]:
    """The named benchmarks in that order, each once; ``paper`` stands for its five. Unknown: ``SpecError``."""
    wanted: dict[str, Benchmark] = {}
    for name in names:
        for one in PAPER if name == "paper" else (name,):
            if one not in BENCHMARKS:
                known = [*BENCHMARKS, "paper"]
                raise SpecError(f"there is no benchmark {one!r}{nearest(one, known, 'there are')}")
            wanted[one] = BENCHMARKS[one]
    if not wanted:
        raise SpecError(f"no benchmark is named; there are {', '.join(BENCHMARKS)} and paper")
    return tuple(wanted.values())


def locate(
    benchmarks: Sequence[Benchmark], folder: Path, given: Mapping[str, Path]
) -> tuple[Source, ...]:
    """Each benchmark with its files: those ``given`` by name, else its published names below ``folder``.

    A name that several data sets use (``test-*.parquet``) counts only in a folder that is called like the benchmark.
    All that is missing is told in one ``DataError``.
    """
    for name in given:
        if name not in BENCHMARKS:
            raise SpecError(f"there is no benchmark {name!r}{nearest(name, list(BENCHMARKS), '')}")
    found, lacking = [], []
    for benchmark in benchmarks:
        named = given.get(benchmark.name) or given.get(benchmark.base)
        files = _named(named, benchmark) if named else _below(folder, benchmark)
        found.append(Source(benchmark=benchmark, files=files))
        if not files:
            names = " or ".join(benchmark.files)
            lacking.append(f"  {benchmark.name}: {names}" + (f" ({named})" if named else ""))
    if lacking:
        raise DataError(
            f"these benchmarks' files are not in {folder} (nor in a folder there that is called like the benchmark):\n"
            + "\n".join(lacking)
            + "\nname a file with --file NAME=PATH, or see docs/evaluation.md for what is read"
        )
    return tuple(found)


def _named(path: Path, benchmark: Benchmark) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    return next(
        (found for name in benchmark.files if (found := tuple(sorted(path.glob(name))))), ()
    )


def _below(folder: Path, benchmark: Benchmark) -> tuple[Path, ...]:
    for pattern in benchmark.files:
        for depth in range(DEEPEST + 1):
            files = sorted(folder.glob("*/" * depth + pattern))
            if pattern.startswith(SHARED):
                files = [file for file in files if _called(file.parent, folder, benchmark.base)]
            if files:
                return tuple(file for file in files if file.parent == files[0].parent)
    return ()


def _called(place: Path, top: Path, name: str) -> bool:
    """Whether a folder, or one between it and ``top``, is called like the benchmark: ``M3CoT``, ``lmms-lab__ai2d``."""
    plain = re.sub(r"[^a-z0-9]", "", name)
    between = [place, *(folder for folder in place.parents if top in (folder, *folder.parents))]
    names = (re.split(r"__", folder.name.lower())[-1] for folder in between)
    return any(re.sub(r"[^a-z0-9]", "", said) == plain for said in names)
