"""What one step is asked to do: a typed, serialised record whose hash is the step's identity.

A task names its inputs by digest and holds every parameter that changes the result. What does not change it (batch
sizes, shards, threads, devices, engine) is an ``Execution`` and no part of the identity, so a step that any run in the
store has committed is adopted and not run again.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    field_validator,
    model_validator,
)

from mstar.core.rules import find_rule, rules
from mstar.optimization import Optimization
from mstar.record import Record, is_false, is_none
from mstar.storage.manifest import Ref, canonical_json, sha256

TIMEOUT = 5.0
"""Seconds that one answer is thought about."""


def _is_usual_timeout(value: object) -> bool:
    """Left out as usual, so that older tasks keep their hash."""
    return value == TIMEOUT


class Prompt(Record):
    """How a query becomes the user's turn: ``{question}``, ``{options}`` and (hinted only) ``{answer}`` are filled in.

    ``{options}`` is ``options_before`` followed by each option formatted by ``option`` (fields ``{letter}``,
    ``{text}``) and joined by ``options_between``; it is empty for free-form questions.
    """

    template: str = "{question}{options}"
    options_before: str = "\nOptions:\n"
    option: str = "({letter}) {text}"
    options_between: str = "\n"


class Sampling(Record):
    """How responses are drawn. Temperature 0 is greedy and then ``n`` must be 1."""

    n: int = Field(16, ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)

    @model_validator(mode="after")
    def _greedy_draws_once(self) -> Self:
        if self.temperature == 0 and self.n != 1:
            raise ValueError(
                "temperature 0 is greedy: every sample would be the same, so n must be 1"
            )
        return self


class Slice(Record):
    """Queries ``start`` to ``start + count`` of an endless, reshuffled pass over a split (``core.schedule``).

    ``shuffle`` None keeps the split's own order; ``count`` None takes the split to its end.
    """

    split: str
    start: int = Field(0, ge=0)
    count: int | None = Field(None, ge=1)
    shuffle: int | None = None


class Queries(Record):
    """Sample answers to queries from the start."""

    source: Literal["queries"] = "queries"
    data: Ref
    slice: Slice


class Prefixes(Record):
    """Complete every step prefix of the responses that a ``pairs`` step kept (paper, section 3.3, Monte Carlo)."""

    source: Literal["prefixes"] = "prefixes"
    data: Ref
    split: str
    responses: Ref


class AnyTask(Record):
    """What every task has. ``salt`` changes the identity and nothing else: so no other run's step is adopted."""

    version: int = 1
    salt: str | None = Field(None, exclude_if=is_none)


class GenerateTask(AnyTask):
    """Sample responses from a policy."""

    stage: Literal["generate"] = "generate"
    model: Ref
    source: Annotated[Queries | Prefixes, Field(discriminator="source")]
    prompt: Prompt
    sampling: Sampling
    step_separator: str = "\n"
    seed: int


class Select(Record):
    """``R = H(1(correct) * min over steps)``: keep what the rule ``H`` keeps of the right responses.

    ``k`` and ``alpha`` are parameters of rules; ``alpha`` null under ``threshold`` is chosen on validation, by steps of
    0.1. ``per_query`` caps what a query may give under a rule without a ``k``, ``limit`` the whole selection, both by
    random draw; ties go to the lowest sample index. ``min_steps`` drops responses of fewer steps (a bare answer has
    one).
    """

    action: Literal["select"] = "select"
    rule: str = Field(examples=sorted(rules()))
    k: int | None = Field(None, ge=1)
    alpha: float | None = None
    per_query: int | None = Field(None, ge=1)
    limit: int | None = Field(None, ge=1)
    min_steps: int = Field(1, ge=1)
    deduplicate: bool = False

    @field_validator("rule")
    @classmethod
    def _rule_is_known(cls, name: str) -> str:
        find_rule(name)
        return name

    @model_validator(mode="after")
    def _rule_has_its_parameter(self) -> Self:
        rule = find_rule(self.rule)
        for name in rule.needs:
            if name not in rule.tuned and getattr(self, name) is None:
                raise ValueError(
                    f"rule {self.rule} needs {name}: {rule.says.format(k='k', alpha='alpha')}"
                )
        return self


class Pairs(Record):
    """The PRM's questions and responses: de-duplicated, few a question, balanced (paper, section 3.3).

    Half are right and half wrong, and each half has as many multiple-choice as free-form questions, up to ``limit``
    responses in all (fewer when one of the four kinds runs out).
    """

    action: Literal["pairs"] = "pairs"
    per_query: int = Field(4, ge=1)
    limit: int = Field(50_000, ge=4)


class Label(Record):
    """Label each step of the paired responses with the fraction of its completions that are right.

    ``pairs`` is the step that kept the responses; a share ``held_out`` of the questions is kept from training, to
    measure the PRM on.
    """

    action: Literal["label"] = "label"
    pairs: Ref
    held_out: float = Field(0.1, ge=0, lt=1)


class AnswerCheck(Record):
    """When two answers are the same beyond their text: numbers within a relative tolerance (0 is exact).

    ``decimals``: or when both, rounded to so many places, are equal. ``math_verify``: what the typed checks leave open
    is asked of the package math-verify, ``timeout`` seconds an answer; what it has not decided by then is counted apart
    from wrong.
    """

    relative_tolerance: float = Field(0.0, ge=0, lt=1)
    decimals: int | None = Field(None, ge=0, le=12, exclude_if=is_none)
    math_verify: bool = Field(default=False, exclude_if=is_false)
    timeout: float = Field(TIMEOUT, gt=0, le=600, exclude_if=_is_usual_timeout)


class ScoreTask(AnyTask):
    """Grade responses, ask the PRM about each step, and keep what training needs.

    ``labels`` says which answers count as right: None the data set's own, ``vote`` those that a vote weighted by the
    PRM makes (paper, section 3.4). ``retokenize``: the PRM is another model's, and reads the responses' texts in tokens
    of its own.
    """

    stage: Literal["score"] = "score"
    data: Ref
    split: str
    responses: Ref
    prm: Ref | None = None
    prompt: Prompt
    answers: AnswerCheck = AnswerCheck()
    step_separator: str = "\n"
    action: Annotated[Select | Pairs | Label, Field(discriminator="action")]
    labels: Literal["vote"] | None = Field(None, exclude_if=is_none)
    retokenize: bool = Field(default=False, exclude_if=is_false)
    seed: int

    @model_validator(mode="after")
    def _votes_are_weighted(self) -> Self:
        if self.labels == "vote" and self.prm is None:
            raise ValueError("a weighted vote needs a PRM, but prm is null")
        return self


class ScoredExamples(Record):
    """Train on what a score step kept."""

    source: Literal["score"] = "score"
    score: Ref
    split: str


class OtherExamples(Record):
    """Train also on what a score step kept of another data set's queries (paper, section 3.4)."""

    data: Ref
    score: Ref
    split: str


class AnswerExamples(Record):
    """Train on the true answers, without reasoning (the paper's SFT row). ``{answer}`` is filled in."""

    source: Literal["answers"] = "answers"
    slice: Slice
    template: str = "\\boxed{{{answer}}}"


class TrainTask(AnyTask):
    """Train a policy or a PRM.

    ``model`` gives the weights. ``optimizer`` is the checkpoint whose optimizer, schedule, random state and step count
    go on (continuous self-evolving, paper section 3.2), under ``lora`` its adapters too, or None for fresh ones.
    ``retokenize``: another model wrote the examples, and ``model`` learns their texts in tokens of its own.
    """

    stage: Literal["train"] = "train"
    objective: Literal["policy", "prm"] = "policy"
    model: Ref
    optimizer: Ref | None = None
    data: Ref
    examples: Annotated[ScoredExamples | AnswerExamples, Field(discriminator="source")]
    also: OtherExamples | None = Field(None, exclude_if=is_none)
    prompt: Prompt
    step_separator: str = "\n"
    optimization: Optimization
    retokenize: bool = Field(default=False, exclude_if=is_false)
    seed: int

    @model_validator(mode="after")
    def _labels_keep_their_tokens(self) -> Self:
        if self.retokenize and self.objective == "prm":
            raise ValueError(
                "retokenize is true, but a PRM's labels belong to the tokens that were completed; train the PRM on the "
                "model that wrote them"
            )
        return self

    @model_validator(mode="after")
    def _adapters_are_of_their_weights(self) -> Self:
        if self.optimization.lora and self.optimizer and self.optimizer != self.model:
            raise ValueError(
                "lora goes on with the adapters of the optimizer's checkpoint, so model must be that checkpoint too; "
                "give the same, or leave optimizer out for fresh adapters"
            )
        return self


class EvaluateTask(AnyTask):
    """Measure a policy on a split: greedy, and sampled at each temperature (paper, section 4.1).

    ``retokenize``: the PRM is another model's, and reads the responses' texts in tokens of its own.
    """

    stage: Literal["evaluate"] = "evaluate"
    data: Ref
    slice: Slice
    model: Ref
    prm: Ref | None = None
    prompt: Prompt
    answers: AnswerCheck = AnswerCheck()
    step_separator: str = "\n"
    greedy: bool = True
    temperatures: tuple[float, ...] = ()
    samples: int = Field(16, ge=1)
    max_new_tokens: int = Field(512, ge=1)
    pass_at: tuple[int, ...] = (1, 2, 4, 8, 16)
    verify: bool = False
    retokenize: bool = Field(default=False, exclude_if=is_false)
    seed: int


class BenchmarkTask(AnyTask):
    """Ask a policy public benchmarks' questions, greedily, and score it by their official rules.

    ``data`` holds each benchmark's published files under ``<set>/``. ``prompt`` None asks as the official tools do.
    """

    stage: Literal["evaluate"] = "evaluate"
    data: Ref
    benchmarks: tuple[str, ...] = Field(min_length=1)
    model: Ref
    prompt: Prompt | None = None
    max_new_tokens: int = Field(1024, ge=1)


def _kind(task: object) -> object:
    """Which record a task is: its stage, and for the two that evaluate what they ask."""
    fields = task if isinstance(task, Mapping) else vars(task)
    return "benchmarks" if "benchmarks" in fields else fields.get("stage")


Task = Annotated[
    Annotated[GenerateTask, Tag("generate")]
    | Annotated[ScoreTask, Tag("score")]
    | Annotated[TrainTask, Tag("train")]
    | Annotated[EvaluateTask, Tag("evaluate")]
    | Annotated[BenchmarkTask, Tag("benchmarks")],
    Discriminator(_kind),
]
TASK: TypeAdapter[Task] = TypeAdapter(Task)


def task_hash(task: Task) -> str:
    """The step's identity: sha256 of the canonical task record."""
    return sha256(canonical_json(task.model_dump(mode="json")))


def task_inputs(task: Task) -> tuple[Ref, ...]:
    """Every artifact the task reads, in a stable order without repeats."""
    found: list[Ref] = []

    def visit(value: object) -> None:
        if isinstance(value, Ref):
            if value not in found:
                found.append(value)
        elif isinstance(value, BaseModel):
            for name in type(value).model_fields:
                visit(getattr(value, name))
        elif isinstance(value, tuple):
            for item in value:
                visit(item)

    visit(task)
    return tuple(found)
