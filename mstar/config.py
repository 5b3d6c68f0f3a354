"""What a person writes: the typed run spec. Defaults are the paper's; ``docs/spec.md`` lists every key.

Parsing turns a mistake into one ``SpecError`` that names the key, what was expected, what was found, and for an unknown
key the nearest valid one.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mstar.cluster import Cluster
from mstar.core.exploration import temperature_grid
from mstar.errors import SpecError
from mstar.storage.manifest import canonical_json, sha256
from mstar.tasks import AnswerCheck, Execution, Optimization, Record, Select

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


TEMPLATE_FIELDS = {
    "query": ("question", "options"),
    "hinted": ("question", "options", "answer"),
    "option": ("letter", "text"),
    "sft_answer": ("answer",),
}
"""What a template may hold. The answer is not in the query's: the policy is not to be told."""


HOW = ("name", "store", "execution", "limits", "cluster")
"""Keys that say where and how a run runs, and do not decide what comes out."""


class Data(Record):
    """A folder of Parquet splits (``<split>.parquet`` or ``<split>-*.parquet``), columns as in docs/data.md."""

    path: str
    train: str = "train"
    validation: str = "validation"
    test: str | None = "test"


class Prompts(Record):
    """User turns. ``hinted`` also holds the answer (``{answer}``): the warm-up's prompt (paper, section 3.1)."""

    query: str = (
        "{question}{options}\nReason step by step, one step a line, "
        "and end with the final answer in \\boxed{{}}."
    )
    hinted: str = (
        "{question}{options}\nThe correct answer is {answer}. Write the reasoning that leads to it step by step, "
        "one step a line, and end with the final answer in \\boxed{{}}."
    )
    options_before: str = "\nOptions:\n"
    option: str = "({letter}) {text}"
    options_between: str = "\n"
    step_separator: str = Field("\n", min_length=1)
    sft_answer: str = "\\boxed{{{answer}}}"

    @field_validator("query", "hinted", "option", "sft_answer")
    @classmethod
    def _template_fills_in(cls, template: str, info: ValidationInfo) -> str:
        names = TEMPLATE_FIELDS[str(info.field_name)]
        try:
            template.format(**dict.fromkeys(names, ""))
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            known = ", ".join(f"{{{name}}}" for name in names)
            raise ValueError(
                f"template {template!r} cannot be filled in ({error}); it may hold {known}, "
                "and a literal brace is written twice"
            ) from None
        return template


class Rollout(Record):
    """How a phase samples."""

    samples: int = Field(16, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)


class WarmUp(Record):
    """Unlock chains of thought: answer hinted prompts, keep what is right, fine-tune (paper, section 3.1)."""

    queries: int | None = Field(None, ge=1)
    rollout: Rollout = Rollout()
    per_query: int = Field(16, ge=1)
    limit: int | None = Field(100_000, ge=1)
    min_steps: int = Field(1, ge=1)
    deduplicate: bool = True
    optimization: Optimization = Optimization()


class Prm(Record):
    """Train the process reward model on Monte Carlo step labels (paper, section 3.3 and appendix D)."""

    completer_epochs: int = Field(1, ge=0)
    queries: int | None = Field(50_000, ge=1)
    rollout: Rollout = Rollout()
    per_query: int = Field(4, ge=1)
    pairs: int = Field(50_000, ge=4)
    completions: int = Field(8, ge=1)
    completion_temperature: float = Field(1.0, gt=0)
    held_out: float = Field(0.1, ge=0, lt=1)
    optimization: Optimization = Optimization(freeze=("vision",))


class Exploration(Record):
    """Adaptive exploration: every ``every`` iterations take the temperature of the best Reward-Pass@2 (section 4.2)."""

    every: int = Field(2, ge=1)
    lowest: float = Field(0.3, gt=0)
    highest: float = Field(1.6, gt=0)
    step: float = Field(0.1, gt=0)

    @model_validator(mode="after")
    def _grid_is_possible(self) -> Self:
        if self.lowest > self.highest:
            raise ValueError(
                f"lowest temperature {self.lowest} is above the highest, {self.highest}"
            )
        temperature_grid(self.lowest, self.highest, self.step)
        return self

    @property
    def temperatures(self) -> tuple[float, ...]:
        return tuple(temperature_grid(self.lowest, self.highest, self.step))


class Evolve(Record):
    """Self-evolving training (paper, section 3.2). ``interval`` is the share of the queries an iteration passes."""

    method: Literal["continuous", "iterative_rft", "rest_em", "sft"] = "continuous"
    iterations: int = Field(4, ge=1)
    interval: float = Field(0.25, gt=0, le=1)
    rollout: Rollout = Rollout()
    select: Select = Select(rule="top_k", k=2)
    exploration: Exploration | None = Exploration()
    optimization: Optimization = Optimization(warmup_steps=1000)

    @field_validator("interval", mode="before")
    @classmethod
    def _percent(cls, value: object) -> object:
        if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
            value = float(match[1]) / 100
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value <= 1:
            raise ValueError(
                "interval must be above 0 % and at most 100 % of the queries (0.25 or '25%')"
            )
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.select.k is not None and self.select.k > self.rollout.samples:
            raise ValueError(
                f"select.k is {self.select.k}, but only rollout.samples = {self.rollout.samples} are drawn a query"
            )
        return self

    @property
    def needs_prm(self) -> bool:
        """Whether selection or exploration asks the PRM."""
        if self.method == "sft":
            return False
        return self.select.rule in {"threshold", "top_k"} or self.exploration is not None


class Evaluation(Record):
    """What is measured: each iteration on validation, and base, warm-up and final policy on test."""

    samples: int = Field(16, ge=1)
    temperatures: tuple[float, ...] = (1.0,)
    queries: int | None = Field(250, ge=1)
    test_queries: int | None = Field(None, ge=1)
    test_temperature: float = Field(1.0, gt=0)
    pass_at: tuple[int, ...] = (1, 2, 4, 8, 16)

    @field_validator("temperatures")
    @classmethod
    def _positive(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        if any(t <= 0 for t in temperatures):
            raise ValueError("temperatures must be above 0; greedy accuracy is always measured")
        return temperatures

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(k < 1 or k > self.samples for k in self.pass_at):
            raise ValueError(
                f"pass_at {list(self.pass_at)} must lie between 1 and samples = {self.samples}"
            )
        return self


class Limits(Record):
    """When to give up: ``attempts`` at a step whose failure may pass, and seconds one attempt may take."""

    attempts: int = Field(3, ge=1)
    step_seconds: float | None = Field(None, gt=0)


class RunSpec(Record):
    """A whole run."""

    name: str
    seed: int = Field(0, ge=0)
    store: str = "runs"
    data: Data
    model: str
    prompts: Prompts = Prompts()
    answers: AnswerCheck = AnswerCheck()
    warm_up: WarmUp | None = WarmUp()
    prm: Prm | None = Prm()
    evolve: Evolve = Evolve()
    evaluation: Evaluation = Evaluation()
    execution: Execution = Execution()
    limits: Limits = Limits()
    cluster: Cluster = Cluster()

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(
                f"run name {name!r} must be 1 to 63 lower-case letters, digits, '-', '_' or '.', "
                "beginning and ending with a letter or digit"
            )
        return name

    @model_validator(mode="after")
    def _prm_where_needed(self) -> Self:
        if self.evolve.needs_prm and self.prm is None:
            raise ValueError(
                "evolve.select or evolve.exploration needs a PRM, but prm is null; "
                "add prm, or use rule 'all' or 'random' with exploration null"
            )
        return self

    @property
    def result_hash(self) -> str:
        """Hash of everything that decides the results; what ``HOW`` lists does not."""
        fields = self.model_dump(mode="json", exclude=set(HOW))
        return sha256(canonical_json(fields))


def parse_spec(raw: object, *, source: str = "the spec") -> RunSpec:
    """A run spec from parsed YAML or JSON; ``SpecError`` lists every mistake found."""
    if not isinstance(raw, Mapping):
        raise SpecError(f"{source}: expected keys and values, found {type(raw).__name__}")
    try:
        return RunSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(f"{source} is not valid:\n" + "\n".join(_explain(error, RunSpec))) from None


def load_spec(path: Path, overrides: Iterable[str] = ()) -> RunSpec:
    """The spec in a YAML file, with ``a.b=c`` overrides applied; relative paths are relative to the file."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe one
    except FileNotFoundError:
        raise SpecError(f"no spec at {path}: pass the path of a YAML file with -f") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{path}: expected keys and values, found {type(raw).__name__}")
    raw = _unshared(raw)
    for override in overrides:
        apply_override(raw, override)
    return _anchored(parse_spec(raw, source=str(path)), path.resolve().parent)


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set ``a.b=c`` in a parsed spec, ``c`` read as YAML; ``SpecError`` when it has no such form."""
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise SpecError(
            f"--set {override!r}: expected key.key=value, for example --set evolve.iterations=4"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {override!r}: the value is not YAML: {error}") from None
    target = raw
    for name in names[:-1]:
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
        if not isinstance(target, dict):
            raise SpecError(f"--set {override!r}: {name} is not a group of keys")
    target[names[-1]] = value


def spec_differences(old: RunSpec, new: RunSpec) -> list[str]:
    """Keys whose values decide results and differ, each as ``key: old -> new``."""
    before, after = (_flat(spec.model_dump(mode="json", exclude=set(HOW))) for spec in (old, new))
    keys = sorted(before.keys() | after.keys())
    absent = "absent"
    return [
        f"{key}: {before.get(key, absent)} -> {after.get(key, absent)}"
        for key in keys
        if before.get(key, absent) != after.get(key, absent)
    ]


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake, not the last one's win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001 - yaml's
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                where = f"line {key.start_mark.line + 1}"
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice ({where})", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _anchored(spec: RunSpec, folder: Path) -> RunSpec:
    """Relative paths in a spec file are relative to that file, whatever folder the command runs in."""

    def anchor(path: str) -> str:
        return path if "://" in path else str(folder / Path(path).expanduser())

    data = spec.data.model_copy(update={"path": anchor(spec.data.path)})
    return spec.model_copy(
        update={"data": data, "model": anchor(spec.model), "store": anchor(spec.store)}
    )


def _unshared(value: Any) -> Any:
    """A copy in which what a YAML alias repeats is there each time, so that an override changes one of them."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _explain(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line a mistake: key, what was expected, what was found."""
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        key = ".".join(path) or "spec"
        if item["type"] == "extra_forbidden":
            lines.append(f"  {key}: unknown key{_nearest(path, root)}")
        elif item["type"] == "missing":
            lines.append(f"  {key}: required, but not there")
        elif item["type"] == "value_error":
            lines.append(f"  {key}: {item['ctx']['error']}")
        else:
            lines.append(f"  {key}: {item['msg'].lower()}, found {item['input']!r}")
    return lines


def _nearest(path: list[str], root: type[BaseModel]) -> str:
    """A hint for an unknown key: the nearest valid one, or all of them."""
    model: type[BaseModel] | None = root
    for name in path[:-1]:
        field = model.model_fields.get(name) if model else None
        model = _model_of(field.annotation) if field else None
    if model is None:
        return ""
    close = difflib.get_close_matches(path[-1], model.model_fields, n=1)
    return (
        f"; did you mean {close[0]}?"
        if close
        else f"; valid keys are {', '.join(model.model_fields)}"
    )


def _model_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
