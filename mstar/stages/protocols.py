"""What a stage asks of its backends. A backend adapts an engine, never the algorithm.

All three take prompts whose image travels with them: a scorer that does not see the image cannot be written by mistake.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from PIL.Image import Image

from mstar.core.records import Example, Response
from mstar.optimization import Optimization
from mstar.tasks import Sampling

Progress = Callable[[int], None]
"""Called with how many more units (prompts, responses, examples) are finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """A query ready for a model: the user's turn, its image, and what the answer already begins with.

    ``prefix`` holds response tokens to continue from (empty from the start) and ``prefix_name`` their name in
    ``Response.prefix``. ``seeds`` has one seed a sample, each in [0, 2**63).
    """

    query_id: str
    text: str
    image: Image
    seeds: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    prefix_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the PRM says of one response: where its steps end (token index, exclusive) and a score for each."""

    step_ends: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """An example with its prompt: what a trainer encodes."""

    prompt: Prompted
    example: Example


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a training step did. ``losses`` has one mean loss an optimizer step, in order.

    ``global_step`` counts optimizer steps since the optimizer was fresh, also over earlier checkpoints. ``usage`` is
    what it took, by name and unit (tokens a second, peak bytes), and no part of the outcome.
    """

    losses: tuple[float, ...]
    global_step: int
    examples: int
    tokens: int
    learning_rate: float
    usage: dict[str, float] = field(default_factory=dict)


Ask = tuple[Sequence[Prompted], Sampling]
"""Prompts, and how to answer them."""


class Sampler(Protocol):
    """Draws responses from one policy."""

    def sample(
        self, prompts: Sequence[Prompted], sampling: Sampling, policy: str, progress: Progress
    ) -> list[list[Response]]:
        """``len(seeds)`` responses a prompt, in the prompts' order, sample ``i`` drawn from ``seeds[i]`` alone.

        Image placeholder, pad, bos and unk tokens are never drawn. Raises ``ModelError`` when a prompt does not fit
        the model's context or an image its limits.
        """

    def sample_each(
        self, asks: Sequence[Ask], policy: str, progress: Progress
    ) -> list[list[list[Response]]]:
        """What ``sample`` says of each of ``asks``, in order; an engine may work on all of them at once."""

    def stream(
        self,
        read: Callable[[], Iterable[Prompted]],
        sampling: Sampling,
        policy: str,
        progress: Progress,
    ) -> Iterator[list[list[Response]]]:
        """As ``sample``, for more prompts than memory holds: some prompts' responses at a time, in the prompts' order.

        ``read`` gives the same prompts each time it is called: an engine whose start takes long reads them once before
        it starts, so that one which does not fit costs nothing.
        """

    def prepare(self, prompts: Iterable[Prompted], max_new_tokens: int) -> None:
        """Tell an engine whose start takes long all that it will be asked, so that it refuses and plans before that."""

    def close(self) -> None:
        """Stop the engine and free its memory, all of it. Whoever opened a sampler closes it, also after an error."""


class StepScorer(Protocol):
    """Scores steps with one PRM, which sees the image."""

    def score(
        self, prompts: Sequence[Prompted], responses: Sequence[Response], progress: Progress
    ) -> list[Judged]:
        """One ``Judged`` a response, in order; ``prompts[i]`` is the prompt of ``responses[i]``."""


class Trainer(Protocol):
    """Trains a policy or a PRM and leaves a checkpoint."""

    def train(
        self,
        rows: Sequence[TrainingRow],
        optimization: Optimization,
        *,
        seed: int,
        resume_from: Path | None,
        save_to: Path,
        progress: Progress,
    ) -> TrainReport:
        """Train one pass an epoch over ``rows`` in an order that only ``seed`` and the epoch decide.

        ``resume_from`` is an earlier ``save_to`` whose optimizer, scheduler, random state and step count go on.
        ``save_to`` gets ``model/`` (loads in transformers alone) and ``trainer/`` (the rest).
        """


class StepSplitter(Protocol):
    """Finds where the steps of a tokenised response end."""

    def step_ends(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Token index (exclusive) at the end of each step; the last is ``len(tokens)``, and it is empty for none."""


T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most ``size`` items; memory holds one."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
