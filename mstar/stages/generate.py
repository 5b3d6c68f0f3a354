"""Generate: sample responses from a policy, to queries or to the steps that a response begins with."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from mstar.core.records import Example, Finish, Response
from mstar.core.steps import step_ends_from_pieces
from mstar.data.images import decode_image
from mstar.data.splits import lookup
from mstar.stages.context import Context
from mstar.stages.engines import open_sampler
from mstar.stages.inputs import (
    block,
    load_split,
    model_folder,
    part_files,
    prompted,
    sample_seeds,
    sliced,
    user_turn,
)
from mstar.stages.protocols import Progress, Prompted
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.reading import resolve
from mstar.storage.tables import TableWriter, read_tables
from mstar.tasks import GenerateTask, Prefixes, Queries


def generate_shard(
    task: GenerateTask, context: Context, shard: tuple[int, int], writer: ArtifactWriter
) -> dict[str, Any]:
    """Sample one shard's responses into ``responses.parquet``; the shard's counts."""
    with context.timed("load"):
        folder = model_folder(context, task.model)
        sampler = open_sampler(folder, context.execution)
        if isinstance(task.source, Queries):
            total, prompts = _queries(task, task.source, context, shard)
        else:
            total, prompts = _prefixes(task, task.source, context, shard, folder)
    counts = {"responses": 0, "tokens": 0, "stopped": 0}
    path = context.scratch / "responses.parquet"
    progress: Progress = context.track(total, "prompts")
    with closing(sampler), TableWriter(path, Response) as table:
        drawn = sampler.stream(prompts, task.sampling, task.model.digest, progress)
        while True:
            with context.timed("sample"):
                found = next(drawn, None)
            if found is None:
                break
            with context.timed("write"):
                flat = [response for responses in found for response in responses]
                table.write(flat)
            counts["responses"] += len(flat)
            counts["tokens"] += sum(response.token_count for response in flat)
            counts["stopped"] += sum(response.finish is Finish.STOP for response in flat)
    writer.add_file("responses.parquet", path, rows=counts["responses"], move=True)
    return counts


def _queries(
    task: GenerateTask, source: Queries, context: Context, shard: tuple[int, int]
) -> tuple[int, Callable[[], Iterator[Prompted]]]:
    split = load_split(context, source.data, source.slice.split)
    mine = block(sliced(split, source.slice), *shard)

    def prompts() -> Iterator[Prompted]:
        for sample in split.read(mine):
            seeds = sample_seeds(task.seed, sample.query.id, "", task.sampling.n)
            yield prompted(task.prompt, sample, seeds)

    return len(mine), prompts


def _prefixes(
    task: GenerateTask, source: Prefixes, context: Context, shard: tuple[int, int], folder: Path
) -> tuple[int, Callable[[], Iterator[Prompted]]]:
    """Every prefix of whole steps of every paired response, but for the whole response."""
    from mstar.models.family import load_family

    family = load_family(
        folder, max_pixels=context.execution.max_pixels, remote_code=context.execution.remote_code
    )
    files = part_files(context, resolve(context.store, source.responses), "examples")
    examples = list(read_tables(files, Example))
    mine = [examples[index] for index in block(range(len(examples)), *shard)]
    starts = [
        (example, end)
        for example in mine
        for end in step_ends_from_pieces(family.pieces(example.tokens), task.step_separator)[:-1]
    ]
    split = load_split(context, source.data, source.split)

    def prompts() -> Iterator[Prompted]:
        queries, images = lookup(split, {example.query_id for example in mine}, context.scratch)
        with images:
            for example, end in starts:
                name = f"{example.sample}/{end}"
                yield Prompted(
                    query_id=example.query_id,
                    text=user_turn(task.prompt, queries[example.query_id]),
                    image=decode_image(images[example.query_id], example.query_id),
                    seeds=sample_seeds(task.seed, example.query_id, name, task.sampling.n),
                    prefix=example.tokens[:end],
                    prefix_name=name,
                )

    return len(starts), prompts
