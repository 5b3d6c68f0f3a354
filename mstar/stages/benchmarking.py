"""Ask a model the questions of public benchmarks, greedily, and score what it answers.

``evaluate_benchmarks`` is all of it, for ``mstarctl eval`` and for a run's last step alike: what it needs is a model
folder, files, and a folder to write to.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mstar.benchmarks.answers import (
    Answers,
    digest,
    file_digests,
    fingerprint,
    weights_digest,
)
from mstar.benchmarks.judge import Judge, Tell
from mstar.benchmarks.official import summary_text
from mstar.benchmarks.records import Asked, Benchmark, Item, Scores, Verdict
from mstar.benchmarks.registry import Source
from mstar.benchmarks.scoring import judge_responses, score
from mstar.core.records import Query
from mstar.data.images import check_image
from mstar.errors import DataError
from mstar.execution import Execution
from mstar.stages.engines import open_sampler
from mstar.stages.inputs import user_turn
from mstar.stages.protocols import Prompted, Sampler, batches
from mstar.storage.faults import explained
from mstar.tasks import Prompt, Sampling

AT_ONCE = {"transformers": 128, "vllm": 512}
"""Questions whose images are decoded, answered and written together, by engine: one that schedules wants many."""

OpenSampler = Callable[[Path, Execution], Sampler]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How questions are asked. ``prompt`` None: as the official tools do; ``limit``: the first so many of each set.

    ``pixels_by`` is what a person raises where an image is too large.
    """

    max_new_tokens: int = 1024
    prompt: Prompt | None = None
    limit: int | None = None
    pixels_by: str = "execution.max_pixels"


def evaluate_benchmarks(
    model: Path,
    sources: Sequence[Source],
    out: Path,
    *,
    asking: Asking,
    execution: Execution,
    tell: Tell,
    judge: Judge | None = None,
    sampler: OpenSampler = open_sampler,
) -> list[Scores]:
    """Scores of the model folder on each source, in order; parts of one set share its answers.

    ``out`` gets each set's responses (``<set>.answers.jsonl``, taken up again when they are there) and verdicts, each
    benchmark's scores as the official tool prints them (``<name>.txt``), ``scores.json`` and the table ``scores.txt``.
    The model is loaded only if an answer is missing. Raises ``DataError``, ``ModelError``, ``ConflictError`` (answers
    of another model or prompt), ``StorageError``.
    """
    scores: dict[str, Scores] = {}
    read: dict[str, str] = {}
    with explained("write", out):
        out.mkdir(parents=True, exist_ok=True)
    with _Model(model, execution, asking.max_new_tokens, sampler) as policy:
        for parts in _by_base(sources):
            base = parts[0].benchmark
            read[base.base] = digest(parts[0].files)
            items, texts = _answered(parts, read[base.base], out, policy, asking, tell)
            verdicts = judge_responses(base, items, texts, judge, tell)
            _write_verdicts(out / f"{base.base}.verdicts.jsonl", verdicts)
            for part in parts:
                scores[part.benchmark.name] = score(part.benchmark, items, verdicts)
    ordered = [scores[source.benchmark.name] for source in sources]
    asked = {
        "weights": policy.weights,
        "model": policy.identity,
        "prompt": asking.prompt and asking.prompt.model_dump(),
        "max_new_tokens": asking.max_new_tokens,
        "limit": asking.limit,
        "files": read,
    }
    with explained("write", out):
        write_scores(out, [source.benchmark for source in sources], ordered, asked, judge)
    return ordered


def write_scores(
    out: Path,
    benchmarks: Sequence[Benchmark],
    scores: Sequence[Scores],
    asked: Mapping[str, Any],
    judge: Judge | None = None,
) -> None:
    """Write ``scores.json``, the table ``scores.txt``, and a text for each benchmark as its official tool prints it.

    ``asked`` is what was asked of which model: scores alone would pass for anybody's. Of a ``judge`` stands there how
    often it failed.
    """
    for benchmark, found in zip(benchmarks, scores, strict=True):
        (out / f"{benchmark.name}.txt").write_text(benchmark.show(found) + "\n", encoding="utf-8")
    (out / "scores.txt").write_text(summary_text(benchmarks, scores) + "\n", encoding="utf-8")
    said = judge.as_json() if judge else None
    body = {"asked": asked, "judge": said, "scores": [found.as_json() for found in scores]}
    (out / "scores.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", "utf-8")


class _Model:
    """A model folder whose sampler is opened when it is first asked, and closed at the end."""

    def __init__(
        self, folder: Path, execution: Execution, max_new_tokens: int, sampler: OpenSampler
    ) -> None:
        self.folder = folder
        self.execution = execution
        self.sampling = Sampling(n=1, temperature=0, max_new_tokens=max_new_tokens)
        self._open = sampler
        self._sampler: Sampler | None = None

    def __enter__(self) -> Self:
        files = file_digests(self.folder)
        self.identity, self.weights = fingerprint(files), weights_digest(files)
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampler:
            self._sampler.close()

    def answer(
        self, prompts: Sequence[Prompted], progress: Callable[[int], None]
    ) -> list[tuple[str, str, Mapping[str, Any]]]:
        if self._sampler is None:
            self._sampler = self._open(self.folder, self.execution)
        found = self._sampler.sample(prompts, self.sampling, self.identity, progress)
        return [
            (r.query_id, r.text, {"tokens": r.token_count, "finish": r.finish.value})
            for responses in found
            for r in responses
        ]


def _by_base(sources: Sequence[Source]) -> list[list[Source]]:
    """Sources that share their answers together."""
    groups: dict[tuple[str, tuple[Path, ...]], list[Source]] = {}
    for source in sources:
        groups.setdefault((source.benchmark.base, source.files), []).append(source)
    return list(groups.values())


def _answered(
    parts: Sequence[Source], read: str, out: Path, model: _Model, asking: Asking, tell: Tell
) -> tuple[list[Item], dict[str, str]]:
    """All questions of some parts of one set, whose files' digest is ``read``, and the responses to them by id."""
    base, files = parts[0].benchmark.base, parts[0].files
    identity = {
        "benchmark": base,
        "files": read,
        "model": model.identity,
        "prompt": asking.prompt.model_dump() if asking.prompt else None,
        "max_new_tokens": asking.max_new_tokens,
    }
    items: list[Item] = []
    done = 0
    with Answers(out / f"{base}.answers.jsonl", identity) as answers:
        for chunk in batches(_wanted(parts, asking.limit), AT_ONCE[model.execution.engine]):
            items += [asked.item for _, asked in chunk]
            missing = [pair for pair in chunk if pair[1].item.id not in answers.texts]
            done += len(chunk) - len(missing)

            def progress(count: int) -> None:
                nonlocal done
                done += count
                tell(done, 0, f"answers, {base}")

            if missing:
                most = model.execution.max_pixels
                prompts = [_prompted(base, file, asked, asking, most) for file, asked in missing]
                answers.add(model.answer(prompts, progress))
    if not items:
        raise DataError(f"{', '.join(map(str, files))}: no questions of {base} are in there")
    return items, answers.texts


def _wanted(parts: Sequence[Source], limit: int | None) -> Iterator[tuple[Path, Asked]]:
    """Questions that any of the parts has, with all rotations of the first ``limit`` of them, and their files."""
    seen: set[str] = set()
    groups: set[str] = set()
    for file, asked in _read(parts[0]):
        item = asked.item
        if item.id in seen:
            raise DataError(f"{parts[0].benchmark.base}: the question {item.id} is there twice")
        seen.add(item.id)
        if not any(part.benchmark.keep(item) for part in parts):
            continue
        group = item.group or item.id
        if limit is None or group in groups or len(groups) < limit:
            groups.add(group)
            yield file, asked


def _read(source: Source) -> Iterable[tuple[Path, Asked]]:
    for file in source.files:
        for asked in source.benchmark.read(file):
            yield file, asked


def _prompted(base: str, file: Path, asked: Asked, asking: Asking, max_pixels: int) -> Prompted:
    item = asked.item
    text = item.prompt
    if asking.prompt:
        query = Query(id=item.id, question=item.question, options=item.options, answer="")
        text = user_turn(asking.prompt, query)
    try:
        image = check_image(asked.image, item.id, max_pixels, asking.pixels_by)
    except DataError as error:
        raise DataError(f"{base}, {file}: {error}") from None
    return Prompted(query_id=item.id, text=text, image=image, seeds=(0,))


def _write_verdicts(path: Path, verdicts: Mapping[str, Verdict]) -> None:
    lines = (
        json.dumps({"id": name, **asdict(v)}, ensure_ascii=False) for name, v in verdicts.items()
    )
    with explained("write", path):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
