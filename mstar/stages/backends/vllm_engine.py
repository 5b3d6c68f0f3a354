"""One running vLLM engine: started for a model and a length, asked for the samples of prompts, stopped.

Each sample is a request with its own seed. vLLM itself makes ``n`` requests of one with ``n`` samples, the i-th with
the first's seed plus i: the same work in the engine, and no gain to measure (``bench/vllm.py`` does it both ways), but
seeds that are not the samples' own, so that mstar's two engines would record different seeds for one sample. What costs
is done once a query: its image is prepared and its prompt rendered, and all samples are handed over together.
"""

from __future__ import annotations

import gc
import logging
import textwrap
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL.Image import Image

from mstar.models.family import Asked, Family
from mstar.stages.backends.runtime import choose_dtype
from mstar.stages.backends.vllm_process import import_vllm
from mstar.tasks import Sampling

log = logging.getLogger("mstar.vllm")

BATCHED_TOKENS = 8192
"""Prompt tokens read in one forward, at least."""

SHORTEST_CONTEXT = 256

CPU_CACHE_BYTES = 1 << 30
"""Keys and values kept on a CPU; VLLM_CPU_KVCACHE_SPACE (GiB) overrides it."""

CPU_BLOCK = 32
"""Tokens in a cache block on a CPU. Samples share whole blocks of their prompt, and vLLM's own 128 are longer than
most prompts; it asks for multiples of 32."""

IMAGE_CACHE_GIB = 1
"""Prepared images that vLLM remembers; its own default, 4, is a lot beside a model in a small pod."""

REASON_LENGTH = 300

Phase = Literal["start", "prompt", "run"]
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine is started with.

    ``context`` is the most tokens a row may have, ``rows`` how many are decoded together, ``share`` the part of each
    GPU's memory that vLLM takes, ``gpus`` over how many the model is split. ``apart`` runs vLLM's core in a process of
    its own, so that prompts are prepared while it works. ``cache_bytes`` are for keys and values on a CPU.
    """

    model: Path
    max_pixels: int
    platform: str
    context: int
    rows: int
    share: float
    gpus: int = 1
    apart: bool = False
    cache_bytes: int = CPU_CACHE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The samples of one prompt, one a seed. ``image_id`` is the image's own; ``length`` is what mstar reads it as."""

    number: int
    query_id: str
    text: str
    image: Image
    image_id: str
    length: int
    prefix: Tokens
    seeds: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The samples of one ``Work``, end tokens included; their prompts' tokens, and what of those was in the cache."""

    number: int
    rows: tuple[Tokens, ...]
    prompt_tokens: int
    cached_tokens: int


class Fault(Exception):
    """The engine failed. ``reason`` is one line; ``phase`` says whether it started, read a prompt, or worked."""

    def __init__(self, phase: Phase, reason: str, query_id: str = "") -> None:
        super().__init__(phase, reason, query_id)
        self.phase = phase
        self.reason = reason
        self.query_id = query_id


@dataclass(slots=True)
class _Open:
    """A piece of work whose samples are not all there."""

    rows: list[Tokens | None]
    missing: int
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What a family must know to encode a prompt."""

    query_id: str
    text: str
    image: Image


@dataclass(slots=True)
class _Rendered:
    """The prompt that was rendered last: the prefixes and temperatures of a query come one after another."""

    key: tuple[str, str] | None = None
    request: dict[str, Any] = field(default_factory=dict)


class Engine:
    """vLLM over the model of one family; it keeps its process for itself."""

    def __init__(self, family: Family, options: EngineOptions) -> None:
        """Load the model; ``Fault`` gives vLLM's reason when it cannot."""
        self.family = family
        self._vllm = import_vllm()
        self._engine: Any = None
        self._open: dict[int, _Open] = {}
        self._last = _Rendered()
        start = time.perf_counter()
        try:
            with _explained("start"), warnings.catch_warnings(action="ignore"):
                threads = torch.set_num_threads
                arguments = self._vllm.EngineArgs(**engine_arguments(family, options))
                self._engine = self._vllm.LLMEngine.from_engine_args(
                    arguments, enable_multiprocessing=options.apart
                )
                # vLLM forbids setting torch's threads and then, for every image, sets them itself.
                torch.set_num_threads = threads
        except BaseException:
            self.close()
            raise
        log.info("vLLM %s started in %.1f s", self._vllm.__version__, time.perf_counter() - start)

    def add(self, work: Work) -> None:
        """Ask for all samples of a prompt; ``Fault`` when vLLM refuses it, or reads it as other tokens than mstar."""
        rendered = self._render(work)
        request = rendered | {"prompt_token_ids": [*rendered["prompt_token_ids"], *work.prefix]}
        for sample, seed in enumerate(work.seeds):
            with _explained("prompt", work.query_id):
                parameters = self._vllm.SamplingParams(
                    seed=seed,
                    temperature=work.sampling.temperature,
                    top_p=work.sampling.top_p,
                    max_tokens=work.sampling.max_new_tokens,
                    stop_token_ids=list(self.family.eos),
                    detokenize=False,
                    output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
                )
                self._engine.add_request(f"{work.number}/{sample}", request, parameters)
        self._open[work.number] = _Open([None] * len(work.seeds), len(work.seeds))

    @property
    def working(self) -> bool:
        """Whether samples are asked for that are not drawn to their end."""
        return bool(self._open)

    def step(self) -> Iterator[Drawn]:
        """Draw one more token for the rows in work; what is complete with it."""
        with _explained("run"):
            outputs = self._engine.step()
        for output in outputs:
            number, _, sample = output.request_id.partition("/")
            (completion,) = output.outputs
            if completion.finish_reason not in {"stop", "length"}:
                raise Fault("run", f"a sample ended with {completion.finish_reason!r}")
            work = self._open[int(number)]
            work.rows[int(sample)] = tuple(completion.token_ids)
            work.missing -= 1
            work.prompt_tokens += len(output.prompt_token_ids)
            work.cached_tokens += output.num_cached_tokens or 0
            if not work.missing:
                del self._open[int(number)]
                yield Drawn(
                    number=int(number),
                    rows=tuple(row for row in work.rows if row is not None),
                    prompt_tokens=work.prompt_tokens,
                    cached_tokens=work.cached_tokens,
                )

    def close(self) -> None:
        """Stop the engine and the processes that it started."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()
            engine.renderer.shutdown()
        del engine
        gc.collect()

    def _render(self, work: Work) -> dict[str, Any]:
        """A prompt as the engine reads it, which must be as the trained model does: tokens, and its image prepared."""
        key = (work.image_id, work.text)
        if key == self._last.key:
            return self._last.request
        request = {
            "prompt": self.family.render(work.text),
            "multi_modal_data": {"image": work.image},
            # In place of a hash of its own: equal images of several queries, temperatures and passes are one image.
            "multi_modal_uuids": {"image": [work.image_id]},
        }
        with _explained("prompt", work.query_id):
            (rendered,) = self._engine.renderer.render_cmpl([request])
        found = len(rendered["prompt_token_ids"])
        if found != work.length:
            self._compare(work, found)
        self._last = _Rendered(key, dict(rendered))
        return self._last.request

    def _compare(self, work: Work, found: int) -> None:
        # The length was reckoned from the image's size; the processor itself has the last word.
        prompt: Asked = _Prompt(work.query_id, work.text, work.image)
        length = len(self.family.encode([prompt])[0].tokens)
        if found != length:
            raise Fault(
                "prompt",
                f"vLLM reads the prompt as {found} tokens and transformers, which trains the model, as {length}",
                work.query_id,
            )


@contextmanager
def _explained(phase: Phase, query_id: str = "") -> Iterator[None]:
    """Make an error of vLLM's a ``Fault`` with its reason; its traceback goes to the log."""
    try:
        yield
    except Exception as error:
        log.info("vLLM failed", exc_info=True)
        raise Fault(phase, one_line(error), query_id) from error


def context_for(needed: int, most: int) -> int:
    """Tokens that an engine is started for: doubled, so that prompts of growing lengths start few engines."""
    return min(most, max(SHORTEST_CONTEXT, 1 << (needed - 1).bit_length()))


def engine_arguments(family: Family, options: EngineOptions) -> dict[str, Any]:
    """What an engine is started with, in vLLM's own names."""
    from mstar.stages.backends import vllm_bans

    arguments: dict[str, Any] = {
        "model": str(family.path),
        "dtype": str(choose_dtype(torch.device(options.platform))).removeprefix("torch."),
        "max_model_len": options.context,
        "max_num_seqs": options.rows,
        "max_num_batched_tokens": max(options.context, options.rows, BATCHED_TOKENS),
        "tensor_parallel_size": options.gpus,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "mm_processor_cache_gb": IMAGE_CACHE_GIB,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # the task says how to sample, not the model's folder
        "logits_processors": [vllm_bans.NAME],
        "additional_config": vllm_bans.asked(family.banned, family.vocabulary),
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    if options.gpus > 1:
        arguments["distributed_executor_backend"] = "mp"
    if options.platform == "cpu":
        return arguments | {
            # With it, a seed ends the engine ("CPU Generator does not use offset").
            "enable_chunked_prefill": False,
            # A compiled model needs a C++ compiler and half a minute; an image of a stage has neither.
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "kv_cache_memory_bytes": options.cache_bytes,
        }
    return arguments | {"gpu_memory_utilization": options.share}


def one_line(error: BaseException) -> str:
    """The reason in an error's text, without the frames and links that pydantic puts around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    wordy = [line for line in lines if line and not line.startswith(("For further", "["))]
    if wordy and "validation error" in wordy[0] and len(wordy) > 1:
        wordy = wordy[1:]
    reason = (wordy or [type(error).__name__])[0]
    reason = reason.removeprefix("Value error, ").partition(" [type=")[0]
    return textwrap.shorten(reason, REASON_LENGTH, placeholder=" …").rstrip(". ")
