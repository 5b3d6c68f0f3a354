"""Samples with vLLM: the engine for real models, and one that a laptop can try on a CPU.

What prompts need is measured first, by the model's family: a prompt that does not fit is refused before an engine is
started, and engines are started for the length that is needed. Then all prompts are handed over as fast as they are
taken: a query's samples together, with its image's digest, and where there are several settings one query's settings
after another, so that an engine prepares and reads an image once for all of them.
"""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL.Image import Image

from mstar.core.records import Response
from mstar.errors import MstarError, SpecError
from mstar.execution import Execution
from mstar.models.family import REMOTE_CODE, load_family, model_type
from mstar.stages.backends.encoding import check_fits
from mstar.stages.backends.responses import respond
from mstar.stages.backends.vllm_engine import EngineOptions, Fault, Tokens, Work, context_for
from mstar.stages.backends.vllm_faults import explain, lost
from mstar.stages.backends.vllm_pool import Pool
from mstar.stages.backends.vllm_process import choose_platform, import_vllm, share_out
from mstar.stages.protocols import Ask, Progress, Prompted, batches
from mstar.tasks import Sampling

log = logging.getLogger("mstar.vllm")

AHEAD = 2
"""Rows asked for, in full batches: one at work and one waiting, so that few prepared images are held."""

HOTTEST = 2.0
"""The highest temperature that vLLM takes."""

CHECKED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Job:
    """A prompt to draw for: the ``place``-th of the ``setting``-th ask."""

    setting: int
    place: int
    prompt: Prompted
    sampling: Sampling


class VllmSampler:
    """Draws responses from the policy in ``model_dir``. The engines start when the first prompts are known.

    ``prompt_tokens`` and ``cached_tokens`` count, over all samples, how long their prompts were and what of them an
    engine remembered.
    """

    def __init__(self, model_dir: Path, execution: Execution) -> None:
        import_vllm()
        self.platform = choose_platform(execution)
        self.places = share_out(self.platform, execution)
        self.execution = execution
        if model_type(model_dir) in REMOTE_CODE:
            raise SpecError(
                f"execution.engine vllm does not serve {model_dir}, a model that runs code from its own folder. Set "
                "execution.engine to transformers (docs/legacy-models.md)."
            )
        self.family = load_family(model_dir, max_pixels=execution.max_pixels)
        self.pool: Pool | None = None
        self.prompt_tokens = self.cached_tokens = 0
        self._needed = 0
        self._measured: dict[tuple[str, tuple[int, int]], tuple[int, int]] = {}
        self._number = 0

    def sample(
        self, prompts: Sequence[Prompted], sampling: Sampling, policy: str, progress: Progress
    ) -> list[list[Response]]:
        """``len(seeds)`` responses a prompt, in the prompts' order, sample ``i`` drawn from ``seeds[i]`` alone."""
        return self.sample_each([(prompts, sampling)], policy, progress)[0]

    def sample_each(
        self, asks: Sequence[Ask], policy: str, progress: Progress
    ) -> list[list[list[Response]]]:
        """What ``sample`` says of each of ``asks``, at work together: the n-th prompts of all asks come in a row."""
        for prompts, sampling in asks:
            _check_temperature(sampling)
            self.prepare(prompts, sampling.max_new_tokens)
        jobs = [
            _Job(setting, place, prompt, sampling)
            for setting, (prompts, sampling) in enumerate(asks)
            for place, prompt in enumerate(prompts)
        ]
        jobs.sort(key=lambda job: job.place)
        found: list[list[list[Response]]] = [[[] for _ in prompts] for prompts, _ in asks]
        for job, rows in self._draw(jobs):
            found[job.setting][job.place] = self._respond(job, rows, policy)
            progress(1)
        return found

    def stream(
        self,
        read: Callable[[], Iterable[Prompted]],
        sampling: Sampling,
        policy: str,
        progress: Progress,
    ) -> Iterator[list[list[Response]]]:
        """As ``sample``, some prompts at a time; ``read`` is called twice, first to check and measure all prompts."""
        _check_temperature(sampling)
        self.prepare(read(), sampling.max_new_tokens)
        jobs = (_Job(0, place, prompt, sampling) for place, prompt in enumerate(read()))
        done: dict[int, list[Response]] = {}
        following = 0
        for job, rows in self._draw(jobs):
            done[job.place] = self._respond(job, rows, policy)
            progress(1)
            ready = []
            while following in done:
                ready.append(done.pop(following))
                following += 1
            if ready:
                yield ready

    def prepare(self, prompts: Iterable[Prompted], max_new_tokens: int) -> None:
        """Refuse prompts that do not fit (``ModelError``), and note how long the longest row will be."""
        for chunk in batches(prompts, CHECKED_AT_ONCE):
            self.family.check(chunk)
            for prompt in chunk:
                length, image = self._measure(prompt)
                answer = len(prompt.prefix) + max_new_tokens
                check_fits(self.family, prompt.query_id, length, answer, image=image)
                self._needed = max(self._needed, length + answer)

    def close(self) -> None:
        """Stop the engines; their processes are gone then, and all their memory. Further prompts would start others."""
        self._close(kill=False)

    def _close(self, *, kill: bool) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.close(kill=kill)
            if self.prompt_tokens:
                share = self.cached_tokens / self.prompt_tokens
                log.info(
                    "vLLM read %d prompt tokens, %.0f %% of them from its prefix cache",
                    self.prompt_tokens,
                    100 * share,
                )

    def _draw(self, jobs: Iterable[_Job]) -> Iterator[tuple[_Job, tuple[Tokens, ...]]]:
        """The samples of each job as they are complete; jobs are read as the engines take them."""
        waiting: dict[int, _Job] = {}
        digest = _Digest()
        try:
            for job in jobs:
                if not job.prompt.seeds:
                    yield job, ()
                    continue
                image = job.prompt.image
                if image.mode != "RGB":
                    image = image.convert("RGB")
                name = digest.of(image)
                pool = self._open_pool()
                yield from self._collected(pool, waiting, block=False)
                while not pool.takes(name):
                    yield from self._collected(pool, waiting, block=True)
                self._number += 1
                waiting[self._number] = job
                pool.give(self._work(job, image, name))
            while waiting:
                yield from self._collected(self._open_pool(), waiting, block=True)
        except BaseException:
            self._close(kill=True)
            raise

    def _collected(
        self, pool: Pool, waiting: dict[int, _Job], *, block: bool
    ) -> Iterator[tuple[_Job, tuple[Tokens, ...]]]:
        for drawn in pool.collect(block=block):
            self.prompt_tokens += drawn.prompt_tokens
            self.cached_tokens += drawn.cached_tokens
            yield waiting.pop(drawn.number), drawn.rows

    def _work(self, job: _Job, image: Image, name: str) -> Work:
        prompt = job.prompt
        return Work(
            number=self._number,
            query_id=prompt.query_id,
            text=prompt.text,
            image=image,
            image_id=name,
            length=self._measure(prompt)[0],
            prefix=prompt.prefix,
            seeds=prompt.seeds,
            sampling=job.sampling,
        )

    def _measure(self, prompt: Prompted) -> tuple[int, int]:
        """A prompt's tokens without its prefix, and its image's, which depend on the image's size alone."""
        key = (prompt.text, prompt.image.size)
        if key not in self._measured:
            (self._measured[key],) = self.family.measure([prompt])
        return self._measured[key]

    def _respond(self, job: _Job, rows: tuple[Tokens, ...], policy: str) -> list[Response]:
        return [
            respond(self.family, job.prompt, sample, row, job.sampling, policy)
            for sample, row in enumerate(rows)
        ]

    def _open_pool(self) -> Pool:
        """The engines in work, or, when rows are longer than they take, others."""
        if self.pool is None or self.pool.context < self._needed:
            self.close()
            _free_cached_memory()
            options = EngineOptions(
                model=self.family.path,
                max_pixels=self.execution.max_pixels,
                platform=self.platform,
                context=context_for(self._needed, self.family.context),
                rows=self.execution.sampling_rows,
                share=self.execution.vllm.gpu_share,
                gpus=self.execution.vllm.tensor_parallel,
                apart=self.platform == "cuda",
            )
            limit = AHEAD * self.execution.sampling_rows
            self.pool = Pool(options, self.places, limit, partial(self._explain, options.context))
        return self.pool

    def _explain(
        self, context: int, fault: Fault | None, code: int | None, said: Sequence[str]
    ) -> MstarError:
        if fault is None:
            return lost(code, said, self.family.path, context, self.execution)
        return explain(fault, said, self.family.path, context, self.execution)


class _Digest:
    """What an image shows, as a name. The prompts of one query come one after another and share their picture."""

    def __init__(self) -> None:
        self._last: Image | None = None
        self._name = ""

    def of(self, image: Image) -> str:
        if image is not self._last:
            self._last = image
            size = f"{image.width} {image.height} ".encode()
            self._name = hashlib.sha256(size + image.tobytes()).hexdigest()
        return self._name


def _check_temperature(sampling: Sampling) -> None:
    if sampling.temperature > HOTTEST:
        raise SpecError(
            f"vLLM takes temperatures up to {HOTTEST}, and the task asks for {sampling.temperature}. "
            "Lower it, or set execution.engine to transformers."
        )


def _free_cached_memory() -> None:
    """Give back what this process holds of a GPU and does not use: an engine wants its share of all that there is."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
