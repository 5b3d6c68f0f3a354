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
from mstar.shards import lacking, shard_of

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


def published(name: str) -> int | None:
    """How many questions a benchmark has as published; None where its file decides, or nobody knows it."""
    return (BENCHMARKS[name].questions or None) if name in BENCHMARKS else None


def said_of(name: str, asked: int) -> str:
    """So many questions, and of how many where that is not all: ``3 of 1,000``."""
    whole = published(name)
    return f"{asked:,}" if whole in {None, asked} else f"{asked:,} of {whole:,}"


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
    benchmarks: Sequence[Benchmark],
    folder: Path,
    given: Mapping[str, Path],
    advice: str = "name a file with --file NAME=PATH",
) -> tuple[Source, ...]:
    """Each benchmark with its files: those ``given`` by name, else its published names below ``folder``.

    A name that several data sets use (``test-*.parquet``) counts only in a folder that is called like the benchmark.
    All that is missing is told in one ``DataError``, with the caller's ``advice``. What lies there twice is one too,
    and a set of which a part is missing (``testmini-00000-of-00002-*.parquet`` alone).
    """
    for name in given:
        if name not in BENCHMARKS:
            raise SpecError(f"there is no benchmark {name!r}{nearest(name, list(BENCHMARKS), '')}")
    found, absent = [], []
    for benchmark in benchmarks:
        named = given.get(benchmark.name) or given.get(benchmark.base)
        files = _named(named, benchmark) if named else _below(folder, benchmark)
        places = list(dict.fromkeys(file.parent for file in files))
        if len(places) > 1:
            several = " and ".join(str(next(f for f in files if f.parent == p)) for p in places)
            raise DataError(
                f"{benchmark.name} is there more than once below {folder}: {several}; keep one of them there"
            )
        if missing := lacking(file.name for file in files):
            raise DataError(
                f"{benchmark.name} is not whole: {files[0].parent} lacks {missing}; put that beside {files[0].name}"
            )
        found.append(Source(benchmark=benchmark, files=files))
        if not files:
            names = " or ".join(benchmark.files)
            absent.append(f"  {benchmark.name}: {names}" + (f" ({named})" if named else ""))
    if absent:
        raise DataError(
            f"these benchmarks' files are not in {folder} (nor in a folder there that is called like the benchmark):\n"
            + "\n".join(absent)
            + f"\n{advice}, or see docs/evaluation.md for what is read"
        )
    return tuple(found)


def _named(path: Path, benchmark: Benchmark) -> tuple[Path, ...]:
    if path.is_file():
        if not lacking([path.name]):
            return (path,)
        stem = shard_of(path.name)  # one part stands for its set
        return tuple(sorted(f for f in path.parent.iterdir() if shard_of(f.name) == stem))
    return next(
        (found for name in benchmark.files if (found := tuple(sorted(path.glob(name))))), ()
    )


def _below(folder: Path, benchmark: Benchmark) -> tuple[Path, ...]:
    """All files of the first published name that is there, in whatever folders."""
    for pattern in benchmark.files:
        files = [
            file
            for depth in range(DEEPEST + 1)
            for file in sorted(folder.glob("*/" * depth + pattern))
            if not pattern.startswith(SHARED) or _called(file.parent, folder, benchmark.base)
        ]
        if files:
            return tuple(files)
    return ()


def _called(place: Path, top: Path, name: str) -> bool:
    """Whether a folder, or one between it and ``top``, is called like the benchmark: ``M3CoT``, ``lmms-lab__ai2d``."""
    plain = re.sub(r"[^a-z0-9]", "", name)
    place, top = place.absolute(), top.absolute()  # "." has no name
    between = [place, *(folder for folder in place.parents if top in (folder, *folder.parents))]
    names = (re.split(r"__", folder.name.lower())[-1] for folder in between)
    return any(re.sub(r"[^a-z0-9]", "", said) == plain for said in names)
