"""``mstarctl data check``: what a run would say of a data set, and what only a look at all splits together shows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from mstar.data.images import oddities
from mstar.data.importing.records import Tally, Tell
from mstar.data.importing.wording import answer_kind
from mstar.data.splits import Sample, Split, find_split, parquet
from mstar.data.validate import check_splits
from mstar.errors import DataError
from mstar.shards import shard_of

SHOWN = 5
_KNOWN = ("train", "unlabeled", "validation", "test")


@dataclass(slots=True)
class Checked:
    """What the splits hold. ``shared`` counts images by the two splits that have them, ``odd`` by what is odd."""

    splits: dict[str, Tally] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    odd: dict[str, int] = field(default_factory=dict)


def find_splits(folder: Path) -> list[Split]:
    """Every split in a data folder, the usual ones first; ``DataError`` when there is none."""
    if not folder.is_dir():
        raise DataError(f"no data folder at {folder}")
    names = {shard_of(path.name) or path.stem for path in folder.glob("*.parquet")}
    if not names:
        raise DataError(f"no *.parquet in {folder}; mstarctl data import makes such files")
    order = [name for name in _KNOWN if name in names] + sorted(names.difference(_KNOWN))
    return [find_split(folder, name) for name in order]


def check_data(splits: Sequence[Split], tell: Tell, *, max_pixels: int | None = None) -> Checked:
    """Look at every row. Raises ``DataError`` as ``check_splits`` does; an image in two splits is only reported.

    Images are compared by their bytes: one that was encoded twice is two.
    """
    found = Checked(splits={split.name: Tally() for split in splits})
    kinds: dict[str, Counter[str]] = {split.name: Counter() for split in splits}
    odd: Counter[str] = Counter()
    places: dict[bytes, set[str]] = {}
    total = sum(split.rows() for split in splits)
    done = 0
    latest: tuple[bytes, bytes] = (b"", b"")

    def look(split: str, sample: Sample) -> None:
        nonlocal done, latest
        done += 1
        if done % 256 == 0:
            tell(done, total, "rows")
        query = sample.query
        kinds[split][answer_kind(query.answer, query.options)] += 1
        if sample.image != latest[0]:
            latest = (sample.image, blake2b(sample.image, digest_size=16).digest())
        if latest[1] not in places:
            places[latest[1]] = set()
            odd.update(oddities(sample.image))
        there = places[latest[1]]
        if split not in there:
            found.splits[split].images += 1
            for other in sorted(there):
                pair = f"{other} and {split}"
                found.shared[pair] = found.shared.get(pair, 0) + 1
                if len(found.examples) < SHOWN:
                    found.examples.append(f"{query.id} in {split} asks about an image of {other}")
            there.add(split)

    for name, rows in check_splits(splits, look, max_pixels=max_pixels).items():
        found.splits[name].rows = rows
        found.splits[name].types = dict(kinds[name].most_common())
    for split in splits:
        found.splits[split.name].sources = _sources(split)
    found.odd = dict(odd)
    return found


def _sources(split: Split) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for file in split.files:
        source = parquet(file)
        if "source" in source.schema_arrow.names:
            for batch in source.iter_batches(columns=["source"]):
                counts.update(str(name) for name in batch.column(0).to_pylist() if name)
    return dict(counts.most_common())
