"""What stages read: queries of a committed data set, their prompts, and the responses of earlier steps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mstar.core.answers import LETTERS
from mstar.core.records import Query, Response
from mstar.core.schedule import slice_indices
from mstar.core.seeds import derive_seed
from mstar.data.images import decode_image
from mstar.data.splits import Sample, Split
from mstar.stages.context import Context
from mstar.stages.protocols import Prompted
from mstar.storage.manifest import Manifest, Ref
from mstar.storage.reading import materialise, open_part, resolve
from mstar.storage.tables import read_tables
from mstar.tasks import Prompt, Slice


def model_folder(context: Context, model: Ref) -> Path:
    """A verified local folder that transformers loads: a base model's files, or a train step's ``model/``."""
    manifest = resolve(context.store, model)
    prefix = "model/" if model.kind == "step" else ""
    return materialise(context.store, manifest, prefix, context.scratch)


def load_split(context: Context, data: Ref, name: str) -> Split:
    """A split of a committed data set, verified."""
    manifest = resolve(context.store, data)
    names = sorted(part.name for part in manifest.parts)
    parts = [n for n in names if n == f"{name}.parquet" or n.startswith(f"{name}-")]
    files = tuple(open_part(context.store, manifest.part(n), context.scratch) for n in parts)
    return Split(name, files)


def sliced(split: Split, wanted: Slice) -> list[int]:
    """The ascending row numbers of a slice; a slice that wraps around keeps each once."""
    return sorted(set(slice_indices(split.rows(), wanted.start, wanted.count, wanted.shuffle)))


def part_files(context: Context, manifest: Manifest, stem: str) -> list[Path]:
    """Verified local files of all parts ``<stem>.parquet`` and ``<shard>/<stem>.parquet``, in order."""
    wanted = [part for part in manifest.parts if Path(part.name).name == f"{stem}.parquet"]
    return [
        open_part(context.store, part, context.scratch)
        for part in sorted(wanted, key=lambda part: part.name)
    ]


def read_responses(context: Context, step: Ref) -> Iterator[Response]:
    """All responses of a generate step, streamed; those to one query come together."""
    files = part_files(context, resolve(context.store, step), "responses")
    return read_tables(files, Response)


def user_turn(prompt: Prompt, query: Query) -> str:
    """A query as the user's turn."""
    options = ""
    if query.options:
        letters = [
            LETTERS[i] if i < len(LETTERS) else str(i + 1) for i in range(len(query.options))
        ]
        shown = (
            prompt.option.format(letter=letter, text=text)
            for letter, text in zip(letters, query.options, strict=True)
        )
        options = prompt.options_before + prompt.options_between.join(shown)
    return prompt.template.format(question=query.question, options=options, answer=query.answer)


def prompted(prompt: Prompt, sample: Sample, seeds: Sequence[int] = ()) -> Prompted:
    """A sample ready for a model."""
    return Prompted(
        query_id=sample.query.id,
        text=user_turn(prompt, sample.query),
        image=decode_image(sample.image, sample.query.id),
        seeds=tuple(seeds),
    )


def sample_seeds(seed: int, query_id: str, prefix_name: str, count: int) -> tuple[int, ...]:
    """One seed a sample: a function of the step's seed, the query and the sample index, and of nothing else."""
    return tuple(derive_seed(seed, query_id, prefix_name, index) for index in range(count))


def block(items: Sequence[int], index: int, count: int) -> Sequence[int]:
    """Shard ``index`` of ``count``: consecutive items, sizes differing by at most one."""
    return items[len(items) * index // count : len(items) * (index + 1) // count]
