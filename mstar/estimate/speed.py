"""Seconds that one device needs for a prompt, a token, an example: from a GPU's figures, or from a measurement.

Arithmetic per token is 2 operations a parameter to read it, 4 more to learn from it, and 2 again where activations are
recomputed. A round of decoding takes as long as its weights and caches need to come from memory, or as its arithmetic.
"""

from dataclasses import dataclass

from mstar.estimate.assumptions import Assumptions
from mstar.estimate.hardware import Gpu
from mstar.estimate.layout import engines_of
from mstar.estimate.models import ModelFacts
from mstar.estimate.ranges import Range
from mstar.execution import Execution
from mstar.optimization import Optimization

HALF = 2.0
"""Bytes of a bfloat16 number: what sampling and scoring hold weights and caches in, on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of a prompt (``text`` and ``image``) and of a response."""

    text: Range
    image: Range
    response: Range

    @property
    def prompt(self) -> Range:
        """The whole prompt."""
        return self.text + self.image


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Seconds on one device: a prompt with its image, a token read behind it, a token drawn."""

    prompt: Range
    read: Range
    drawn: Range


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpeed:
    """Seconds on one device: an example's prompt with its image, and a response token."""

    prompt: Range
    token: Range


def assumed_speed(
    model: ModelFacts,
    gpu: Gpu,
    execution: Execution,
    lengths: Lengths,
    numbers: Assumptions,
    *,
    samples: int = 1,
) -> Speed:
    """Reading and drawing on a GPU whose figures are known, so many samples a prompt.

    GPUs that an engine is split over are taken to share its work without loss.
    """
    split, _ = engines_of(execution)
    reading = numbers["read_utilisation"] * gpu.arithmetic
    vision = lengths.image * (2 * model.vision_parameters * model.patches)
    prompt = (lengths.prompt * (2 * model.language_parameters) + vision) / reading
    read = Range.of(2 * model.language_parameters) / reading
    engine = execution.engine
    rows = rows_at_once(model, gpu, execution, lengths, numbers, samples=samples)
    # A cache grows while a response does: on average half of it is there.
    context = lengths.prompt + lengths.response * 0.5
    moved = context * rows * model.cache_bytes(HALF) + HALF * model.language_parameters
    memory = moved / (numbers[f"bandwidth_{engine}"] * (gpu.bandwidth * split))
    arithmetic = rows * (2 * model.language_parameters) / (reading * split)
    beside = numbers[f"round_ms_{engine}"] * 1e-3
    drawn = (memory.most(arithmetic) + beside) / rows * split
    return Speed(prompt=prompt, read=read, drawn=drawn)


def rows_at_once(
    model: ModelFacts,
    gpu: Gpu,
    execution: Execution,
    lengths: Lengths,
    numbers: Assumptions,
    *,
    samples: int = 1,
) -> Range:
    """Rows that decode together: those asked for, or as many as their caches find room, at least one.

    With vLLM the ``samples`` of a prompt share its cache.
    """
    sharing = samples if execution.engine == "vllm" else 1
    split, _ = engines_of(execution)
    free = _free(gpu, numbers, HALF * model.parameters / split) * split
    row = (lengths.prompt * (1 / sharing) + lengths.response) * model.cache_bytes(HALF)
    room = Range(max(1.0, free.low / row.high), max(1.0, free.high / row.low))
    return room.least(float(execution.sampling_rows))


def assumed_training(
    model: ModelFacts,
    gpu: Gpu,
    optimization: Optimization,
    lengths: Lengths,
    numbers: Assumptions,
    *,
    recomputed: bool = False,
    offloaded: bool = False,
) -> TrainSpeed:
    """Training on a GPU whose figures are known. In float32 a GPU is at best half as fast (TF32)."""
    peak = gpu.arithmetic * (1.0 if optimization.dtype == "bfloat16" else 0.5)
    rate = numbers["train_utilisation"] * peak
    again = 2.0 if recomputed else 0.0
    # Nothing before a frozen tower learns, so it is only read.
    frozen_vision = "vision" in optimization.freeze
    language = (6.0 + again) - (2.0 if "language" in optimization.freeze else 0.0)
    tower = 2.0 if frozen_vision else 6.0 + again
    seen = lengths.image * (tower * model.vision_parameters * model.patches)
    token = Range.of(language * model.language_parameters) / rate
    prompt = (lengths.prompt * (language * model.language_parameters) + seen) / rate
    if offloaded:
        slower = numbers["offload_slowdown"]
        return TrainSpeed(prompt=prompt * slower, token=token * slower)
    return TrainSpeed(prompt=prompt, token=token)


def _free(gpu: Gpu, numbers: Assumptions, taken: float) -> Range:
    reserve = numbers["memory_reserve"]
    low = gpu.memory * (1 - reserve.high) - taken
    high = gpu.memory * (1 - reserve.low) - taken
    return Range(max(0.0, low), max(0.0, high))
