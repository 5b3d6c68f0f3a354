"""The model card (``README.md``, with the front matter of the Hugging Face Hub), and the same for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import yaml

from mstar import __version__
from mstar.benchmarks.registry import published, said_of
from mstar.config import HOW, RunSpec
from mstar.export.lineage import Provenance, Score, describe_step, seed_of
from mstar.report.views import Share, describe
from mstar.storage.manifest import Part
from mstar.tasks import TrainTask

FORMAT = 1
TASK = "image-text-to-text"
PAPER = "arxiv:2412.17451"
PROMPTS = {"run": "the run's", "official": "official", "other": "another"}
"""Whose prompt asked a benchmark's questions, in words."""


def body(
    what: Provenance, files: Mapping[str, Mapping[str, Any]], license_: str | None
) -> dict[str, Any]:
    """``mstar.json``: everything that the card says, and the size and sha256 of every file of the model."""
    spec, ref = what.run.spec, what.checkpoint.entry.ref
    return {
        "format": FORMAT,
        "mstar": __version__,
        "run": what.run.name,
        "step": what.checkpoint.name,
        "kind": _kind(what),
        "checkpoint": {"id": ref.id, "digest": ref.digest},
        "license": license_,
        "base_model": {"name": _name(spec.model), **what.run.inputs.model.model_dump()},
        "data": {"name": _name(spec.data.path), **what.run.inputs.data.model_dump()},
        "sources": [ref.model_dump() for ref in what.sources],
        "recipe": _recipe(spec),
        "scores": [
            {"of": score.of, "split": score.split, "step": score.step, **_figures(score)}
            for score in what.scores
        ],
        "benchmarks": [
            {
                "name": each.name,
                "title": each.title,
                "prompt": each.prompt,
                "source": each.source,
                "by_judge": each.by_judge,
                "published": published(each.name),
                **asdict(each.share),
            }
            for each in what.benchmarks
        ],
        "lineage": [describe_step(step) for step in what.steps],
        "files": dict(sorted(files.items())),
    }


def files_of(parts: Mapping[str, Part]) -> dict[str, dict[str, Any]]:
    """Size and sha256 by name."""
    return {name: {"size": part.size, "sha256": part.sha256} for name, part in parts.items()}


def card(what: Provenance, license_: str | None) -> str:
    """The model card."""
    head = yaml.safe_dump(_front(what, license_), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n".join(_text(what, license_)) + "\n"


def _front(what: Provenance, license_: str | None) -> dict[str, Any]:
    spec = what.run.spec
    front: dict[str, Any] = {
        "license": license_ or "unknown",
        "base_model": _name(spec.model),
        "datasets": [_name(spec.data.path)],
        "library_name": "transformers",
    }
    tags = ["m-star", "self-evolving", "multimodal-reasoning", PAPER]
    if _kind(what) == "policy":
        front |= {"pipeline_tag": TASK, "tags": tags}
    else:
        front["tags"] = [*tags, "process-reward-model"]
    if results := list(_index(what)):
        front["model-index"] = [{"name": what.run.name, "results": results}]
    return front


def _index(what: Provenance) -> Iterator[dict[str, Any]]:
    """The scores in the form that the hub reads."""
    data = what.run.spec.data
    for score in what.scores if _kind(what) == "policy" else ():
        if score.of == "this model" and score.found.greedy:
            name = _name(data.path)
            dataset = {"type": name, "name": name, "split": score.split}
            dataset["revision"] = what.run.inputs.data.digest
            yield _measured(dataset, score.found.greedy, "greedy accuracy in %")
    for each in what.benchmarks:
        name = f"greedy accuracy in %, {PROMPTS[each.prompt]} prompt"
        if published(each.name) not in {None, each.share.n}:
            name += f", {said_of(each.name, each.share.n)} questions"
        yield _measured({"type": each.name, "name": each.title}, each.share, name)


def _measured(dataset: dict[str, str], share: Share, name: str) -> dict[str, Any]:
    metric = {
        "type": "accuracy",
        "name": name,
        "value": round(100 * share.value, 2),
    }
    return {"task": {"type": TASK}, "dataset": dataset, "metrics": [metric]}


def _text(what: Provenance, license_: str | None) -> Iterator[str]:
    spec, step = what.run.spec, what.checkpoint
    policy = _kind(what) == "policy"
    yield f"# {what.run.name}"
    yield ""
    kind = "A vision-language model" if policy else "A process reward model"
    yield (
        f"{kind} trained by M-STaR (self-evolving training for multimodal reasoning, [{PAPER}]"
        f"(https://arxiv.org/abs/2412.17451)) with mstar {step.manifest.versions.get('mstar', __version__)}: step "
        f"`{step.name}` of run `{what.run.name}`, from the base model `{_name(spec.model)}`."
    )
    yield ""
    if license_ is None:
        yield "Its license was not given: that of the base model and of the data applies."
        yield ""
    yield from _use(policy=policy)
    if what.scores or what.benchmarks:
        yield from _score_tables(what)
    yield "## Recipe"
    yield ""
    yield f"Method: {describe(spec)}; seed {spec.seed}."
    yield ""
    yield "```yaml"
    yield yaml.safe_dump(_recipe(spec), sort_keys=False, allow_unicode=True).rstrip()
    yield "```"
    yield ""
    yield "## Data"
    yield ""
    queries = ", ".join(f"{count} {split}" for split, count in sorted(what.run.inputs.queries.items()))  # fmt: skip
    yield f"`{_name(spec.data.path)}`: {queries} questions. Digests are sha256 over content:"
    yield ""
    yield from _table(
        ("artifact", "id", "digest"),
        [(ref.kind, f"`{ref.id}`", f"`{ref.digest}`") for ref in what.sources],
    )
    yield "## Lineage"
    yield ""
    yield "Every step from the base to this checkpoint, each addressed by the hash of what it was asked."
    yield ""
    yield from _table(
        ("step", "stage", "hash", "digest", "seed"),
        [
            (
                made.name,
                _stage(made.task),
                f"`{made.entry.ref.id[:16]}`",
                f"`{made.entry.ref.digest[:16]}`",
                str(seed_of(made)),
            )
            for made in what.steps
        ],
    )
    versions = ", ".join(f"{name} {value}" for name, value in sorted(step.manifest.versions.items()))  # fmt: skip
    yield f"The checkpoint was made with {versions}. `mstar.json` has all hashes in full."


def _use(*, policy: bool) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    if policy:
        yield "from transformers import AutoModelForImageTextToText, AutoProcessor"
        yield ""
        yield 'model = AutoModelForImageTextToText.from_pretrained("DIR")'
        yield 'processor = AutoProcessor.from_pretrained("DIR")'
    else:
        yield "# The backbone opens in transformers; the head, one value a token, is in prm_head.safetensors."
        yield "import torch"
        yield "from pathlib import Path"
        yield "from mstar.models.family import load_family"
        yield "from mstar.models.prm import load_reward_model"
        yield ""
        yield 'family = load_family(Path("DIR"))'
        yield 'model = load_reward_model(family, dtype=torch.float32, device=torch.device("cpu"))'
    yield "```"
    yield ""


def _score_tables(what: Provenance) -> Iterator[str]:
    yield "## Scores"
    yield ""
    judged = sum(each.by_judge for each in what.benchmarks)
    rules = "Answers are checked by rules" + ("." if judged else ", without a language model.")
    yield f"In %, with 95 % Wilson intervals over questions. {rules}"
    yield ""
    rows = []
    for score in what.scores:
        figures = score.found
        sampled = "; ".join(
            f"T {point.temperature:g}: {100 * point.accuracy:.1f}"
            + "".join(f", Pass@{k} {100 * value:.1f}" for k, value in _ends(point.pass_at))
            for point in figures.sampled[:1]
        )
        shown = _shown(figures.greedy) if figures.greedy else "–"
        rows.append((score.of, score.split, shown, sampled or "–", str(figures.queries)))
    if rows:
        yield from _table(("policy", "split", "greedy", "sampled", "questions"), rows)
    if what.benchmarks:
        yield from _table(
            ("benchmark", "prompt", "accuracy", "questions", "from"),
            [
                (
                    each.title,
                    PROMPTS[each.prompt],
                    _shown(each.share),
                    said_of(each.name, each.share.n),
                    f"`{each.source}`",
                )
                for each in what.benchmarks
            ],
        )
    if judged:
        yield f"Of the benchmarks' answers a language model read {judged}, in which the rules found none."
        yield ""


def _ends(values: Mapping[int, float]) -> list[tuple[int, float]]:
    """Pass@K of the largest K."""
    return sorted(values.items())[-1:]


def _shown(share: Share) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _figures(score: Score) -> dict[str, Any]:
    figures = asdict(score.found)
    return {key: figures[key] for key in ("queries", "samples", "greedy", "sampled", "verification")}  # fmt: skip


def _recipe(spec: RunSpec) -> dict[str, Any]:
    """What decides the results, with the names of models and data and never a machine's folders."""
    recipe = spec.model_dump(mode="json", exclude=set(HOW) - {"name"})
    recipe["data"]["path"] = _name(spec.data.path)
    if asked := recipe["evaluation"]["benchmarks"]:
        asked["path"] = _name(asked["path"])
    for key in ("model", "teacher"):
        recipe[key] = recipe[key] and _name(recipe[key])
    return recipe


def _kind(what: Provenance) -> str:
    task = what.checkpoint.task
    return "prm" if isinstance(task, TrainTask) and task.objective == "prm" else "policy"


def _stage(task: Any) -> str:
    return f"{task.stage} ({task.objective})" if isinstance(task, TrainTask) else str(task.stage)


def _name(path: str) -> str:
    """What a person calls a model or a data set: the last of its path, and never a machine's folders."""
    return PurePath(path.rstrip("/")).name.removeprefix("demo:") or path
