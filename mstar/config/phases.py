"""The parts of a spec that surround evolving: data, prompts, sampling, warm-up, PRM, evaluation, limits."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mstar.optimization import Optimization
from mstar.record import Record


def keeping(default: Record) -> BeforeValidator:
    """A group that is given in part keeps what its place sets apart from its type, as when it is not given at all."""

    def laid_over(value: object) -> object:
        own = default.model_dump(exclude_unset=True)
        return {**own, **value} if isinstance(value, Mapping) else value

    return BeforeValidator(laid_over)


PRM_OPTIMIZATION = Optimization(freeze=("vision",))

TEMPLATE_FIELDS = {
    "query": ("question", "options"),
    "hinted": ("question", "options", "answer"),
    "option": ("letter", "text"),
    "sft_answer": ("answer",),
}
"""What a template may hold. The answer is not in the query's: the policy is not to be told."""


class Data(Record):
    """A folder of Parquet splits (``<split>.parquet`` or ``<split>-*.parquet``), columns as in docs/data.md."""

    path: str
    train: str = "train"
    validation: str = "validation"
    test: str | None = "test"

    @model_validator(mode="after")
    def _splits_differ(self) -> Self:
        for name in ("validation", "test"):
            if getattr(self, name) == self.train:
                raise ValueError(
                    f"{name} is the split {self.train!r}, which is trained on; name another one"
                )
        return self


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
        if info.field_name in {"query", "hinted"} and "{question}" not in template:
            raise ValueError(f"template {template!r} does not hold {{question}}")
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
    optimization: Annotated[Optimization, keeping(PRM_OPTIMIZATION)] = PRM_OPTIMIZATION


class Benchmarks(Record):
    """Public benchmarks as a run's last step: ``path`` is a folder with their published files, at any name.

    ``names`` as in ``mstarctl eval``; ``paper`` stands for the paper's five. ``prompt``: how the run asks its own
    queries, or how the official tools ask. ``base`` measures the base model too, so that there is something to compare.
    """

    path: str
    names: tuple[str, ...] = Field(("paper",), min_length=1)
    prompt: Literal["run", "official"] = "run"
    max_new_tokens: int = Field(1024, ge=1)
    base: bool = True


class Evaluation(Record):
    """What is measured: each iteration on validation, and base, warm-up and final policy on test."""

    samples: int = Field(16, ge=1)
    temperatures: tuple[float, ...] = (1.0,)
    queries: int | None = Field(250, ge=1)
    test_queries: int | None = Field(None, ge=1)
    test_temperature: float = Field(1.0, gt=0)
    pass_at: tuple[int, ...] = (1, 2, 4, 8, 16)
    benchmarks: Benchmarks | None = None

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
