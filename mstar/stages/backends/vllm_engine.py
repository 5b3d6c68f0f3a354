"""One running vLLM engine: started for a model and a length, asked for rows of tokens, stopped with nothing left."""

from __future__ import annotations

import gc
import logging
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mstar.errors import ModelError
from mstar.models.family import Family
from mstar.stages.backends.runtime import choose_dtype
from mstar.stages.backends.vllm_process import contained, import_vllm
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling

log = logging.getLogger("mstar.vllm")

BATCHED_TOKENS = 8192
"""Prompt tokens read in one forward, at least."""

CPU_CACHE_BYTES = 1 << 30
"""Keys and values kept on a CPU; VLLM_CPU_KVCACHE_SPACE (GiB) overrides it."""

CPU_BLOCK = 32
"""Tokens in a cache block on a CPU. Samples share whole blocks of their prompt, and vLLM's own 128 are longer than
most prompts; it asks for multiples of 32."""

IMAGE_CACHE_GIB = 1
"""Prepared images that vLLM remembers; its own default, 4, is a lot beside a model in a small pod."""

REASON_LENGTH = 300

Row = tuple[int, int]
"""The place of a row's prompt, and its sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine is started with.

    ``context`` is the most tokens a row may have, ``share`` the part of the free GPU memory that vLLM may take.
    """

    platform: str
    context: int
    rows: int
    share: float


class Engine:
    """vLLM over the model of one family. At most one is open in a process."""

    def __init__(self, family: Family, options: EngineOptions) -> None:
        """Load the model; ``ModelError`` gives vLLM's reason when it cannot."""
        self.family = family
        self.context = options.context
        self._vllm = import_vllm()
        self._open = ExitStack()
        self._engine: Any = None
        self._drawing: set[Row] = set()
        start = time.perf_counter()
        try:
            with self._explained("does not run"), warnings.catch_warnings(action="ignore"):
                self._open.enter_context(contained())
                threads = torch.set_num_threads
                arguments = self._vllm.EngineArgs(**engine_arguments(family, options))
                self._engine = self._vllm.LLMEngine.from_engine_args(arguments)
                # vLLM forbids setting torch's threads and then, for every image, sets them itself.
                torch.set_num_threads = threads
        except BaseException:
            self.close()
            raise
        log.info("vLLM started in %.1f s", time.perf_counter() - start)

    def render(self, prompt: Prompted) -> dict[str, Any]:
        """A prompt as the engine reads it: its tokens, and its image prepared; the prefix is left out."""
        request = {
            "prompt": self.family.render(prompt.text),
            "multi_modal_data": {"image": prompt.image.convert("RGB")},
        }
        with self._explained(f"refuses query {prompt.query_id} to"):
            (rendered,) = self._engine.renderer.render_cmpl([request])
        return dict(rendered)

    def add(
        self, place: int, rendered: dict[str, Any], prompt: Prompted, sampling: Sampling
    ) -> None:
        """Ask for one row a seed."""
        # Each is a request of its own: samples of one request would be drawn from the seeds that follow its first.
        request = rendered | {"prompt_token_ids": [*rendered["prompt_token_ids"], *prompt.prefix]}
        for sample, seed in enumerate(prompt.seeds):
            with self._explained(f"refuses query {prompt.query_id} to"):
                parameters = self._vllm.SamplingParams(
                    seed=seed,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    stop_token_ids=list(self.family.eos),
                    detokenize=False,
                    output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
                )
                self._engine.add_request(f"{place}/{sample}", request, parameters)
            self._drawing.add((place, sample))

    @property
    def unfinished(self) -> int:
        """Rows asked for and not drawn to their end."""
        return len(self._drawing)

    def step(self) -> Iterator[tuple[Row, tuple[int, ...]]]:
        """Draw one more token for the rows in work; the rows that ended, an end token included."""
        with self._explained("ended while it ran"):
            outputs = self._engine.step()
        for output in outputs:
            place, _, sample = output.request_id.partition("/")
            row = (int(place), int(sample))
            (completion,) = output.outputs
            if completion.finish_reason not in {"stop", "length"}:
                raise RuntimeError(f"vLLM ended row {row} with {completion.finish_reason!r}")
            self._drawing.remove(row)
            yield row, tuple(completion.token_ids)

    def close(self) -> None:
        """Stop the engine and free its memory; the process is then as it was before."""
        engine, self._engine = self._engine, None
        try:
            if engine is not None:
                engine.engine_core.shutdown()
                engine.renderer.shutdown()
        finally:
            del engine
            self._open.close()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    @contextmanager
    def _explained(self, fault: str) -> Iterator[None]:
        """Make an error of vLLM's a ``ModelError`` with its reason; its traceback goes to the log."""
        try:
            yield
        except Exception as error:
            log.info("vLLM failed", exc_info=True)
            raise ModelError(
                f"vLLM {self._vllm.__version__} {fault} the model in {self.family.path}: {one_line(error)}. "
                "Set execution.engine to transformers, or install a vLLM that supports the model."
            ) from error


def engine_arguments(family: Family, options: EngineOptions) -> dict[str, Any]:
    """What an engine is started with, in vLLM's own names."""
    arguments: dict[str, Any] = {
        "model": str(family.path),
        "dtype": str(choose_dtype(torch.device(options.platform))).removeprefix("torch."),
        "max_model_len": options.context,
        "max_num_seqs": options.rows,
        "max_num_batched_tokens": max(options.context, options.rows, BATCHED_TOKENS),
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "mm_processor_cache_gb": IMAGE_CACHE_GIB,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # the task says how to sample, not the model's folder
        "logits_processors": [banning(family.banned, family.vocabulary)],
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
    }
    if options.platform == "cpu":
        return arguments | {
            # With it, a seed ends the engine ("CPU Generator does not use offset").
            "enable_chunked_prefill": False,
            # A compiled model needs a C++ compiler and half a minute; an image of a stage has neither.
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "kv_cache_memory_bytes": CPU_CACHE_BYTES,
        }
    free, total = torch.cuda.mem_get_info()
    return arguments | {"gpu_memory_utilization": options.share * free / total}


class _Banning:
    """A logits processor that never lets some tokens be drawn, for either of vLLM's two model runners."""

    tokens: tuple[int, ...]
    vocabulary: int

    def __init__(self, config: Any, where: Any, *_: Any) -> None:
        """``where`` is a device, or the request states that know theirs."""
        self.banned = torch.tensor(self.tokens, device=getattr(where, "device", where))

    def apply(self, logits: torch.Tensor, *_: Any) -> torch.Tensor:
        # An embedding matrix padded beyond the tokenizer has rows that mean nothing.
        logits[:, self.vocabulary :] = -torch.inf
        return logits.index_fill_(1, self.banned, -torch.inf)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Nothing depends on the rows."""


def banning(tokens: Sequence[int], vocabulary: int) -> type:
    """The class of a logits processor that bans ``tokens``.

    A bias of -100 on them would not hold at high temperatures, and a request's list of bad words costs a loop over rows
    and words for each token.
    """
    from vllm.v1.sample.logits_processor import LogitsProcessor

    bases: tuple[type, ...] = (_Banning, LogitsProcessor)
    try:
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondProcessor
    except ImportError:
        pass
    else:
        bases = (*bases, SecondProcessor)
    return type("Banning", bases, {"tokens": tuple(tokens), "vocabulary": vocabulary})


def one_line(error: BaseException) -> str:
    """The reason in an error's text, without the frames and links that pydantic puts around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    wordy = [line for line in lines if line and not line.startswith(("For further", "["))]
    if wordy and "validation error" in wordy[0] and len(wordy) > 1:
        wordy = wordy[1:]
    reason = (wordy or [type(error).__name__])[0]
    reason = reason.removeprefix("Value error, ").partition(" [type=")[0]
    return textwrap.shorten(reason, REASON_LENGTH, placeholder=" …").rstrip(". ")
