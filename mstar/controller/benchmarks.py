"""Benchmarks that a run is to end with: found and looked at before the first step, since the last comes days later."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mstar.benchmarks.registry import Source, find_benchmarks, locate
from mstar.config import RunSpec
from mstar.data.images import check_image
from mstar.errors import DataError

SHOWN = 5
ADVICE = "put them there, or name their folder in evaluation.benchmarks.path (leave out of names what is not to be had)"


def benchmark_sources(spec: RunSpec) -> tuple[Source, ...]:
    """The benchmarks of a spec with their files; none when it asks for none. ``SpecError``, ``DataError``."""
    asked = spec.evaluation.benchmarks
    if asked is None:
        return ()
    return locate(find_benchmarks(asked.names), Path(asked.path), {}, ADVICE)


def check_benchmarks(sources: Sequence[Source], *, max_pixels: int | None = None) -> dict[str, int]:
    """Questions by benchmark; reads every row and decodes every image. ``DataError`` names the first few problems.

    An image above ``max_pixels`` is one of them: the last step would refuse it.
    """
    problems: list[str] = []
    counts: dict[str, int] = {}
    for parts in by_files(sources).values():
        benchmarks, seen = [part.benchmark for part in parts], set()
        found = {benchmark.name: 0 for benchmark in benchmarks}
        fine = b""
        for file in parts[0].files:
            for asked in benchmarks[0].read(file):
                wanted = [one.name for one in benchmarks if one.keep(asked.item)]
                for name in wanted:
                    found[name] += 1
                label = f"{benchmarks[0].base} question {asked.item.id}"
                if asked.item.id in seen:
                    problems.append(f"{label} is there twice")
                seen.add(asked.item.id)
                if wanted and asked.image != fine:  # rotations of a question share their image
                    try:
                        check_image(asked.image, asked.item.id, max_pixels)
                        fine = asked.image
                    except DataError as error:
                        problems.append(f"{benchmarks[0].base}, {file}: {error}")
        problems += [
            f"{name}: no question of it is in {', '.join(map(str, parts[0].files))}"
            for name, count in found.items()
            if not count
        ]
        counts |= found
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        shown = "\n  ".join(problems[:SHOWN])
        raise DataError(f"the benchmarks cannot be used:\n  {shown}{more}")
    return counts


def stored_files(sources: Sequence[Source]) -> Mapping[str, Path]:
    """Each file by its name in the store: the set that it belongs to, then its own."""
    return {
        f"{source.benchmark.base}/{path.name}": path for source in sources for path in source.files
    }


def by_files(sources: Sequence[Source]) -> dict[tuple[Path, ...], list[Source]]:
    """Sources that are read from the same files together."""
    groups: dict[tuple[Path, ...], list[Source]] = {}
    for source in sources:
        groups.setdefault(source.files, []).append(source)
    return groups
