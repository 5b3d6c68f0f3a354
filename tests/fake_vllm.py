"""A vLLM without a model: the parts of the package that the sampler uses, drawing tokens from a hash.

``installed`` puts it where ``import vllm`` finds it, and runs engines in threads in place of processes: what would pass
between two processes still does so, as bytes. What a response says depends on its prompt and seed, as it would;
what was asked of it can be read from the ``World``.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mstar.models.family import load_family
from mstar.stages import backends
from mstar.stages.backends.vllm_pool import Pool
from mstar.stages.backends.vllm_worker import serve


@dataclass
class World:
    """What happened to the fake: engines started and stopped, requests in order, images prepared."""

    started: list[SimpleNamespace] = field(default_factory=list)
    stopped: int = 0
    places: list[dict[str, str]] = field(default_factory=list)
    """The environment of each engine's process."""
    images: list[dict[str, int]] = field(default_factory=list)
    """By engine, how often each image was prepared."""
    requests: list[tuple[str, dict[str, Any], SimpleNamespace]] = field(default_factory=list)
    prepared: int = 0
    most_waiting: int = 0
    device: str = "cpu"
    refuses: Exception | None = None
    """Raised when an engine is started."""
    breaks: Exception | None = None
    """Raised by the third step of an engine."""
    dies: int | None = None
    """The exit code of an engine's process that ends in its third step, without a word to the stage."""
    says: tuple[str, ...] = ()
    """What an engine's process leaves in its log when it ends."""
    extra_tokens: int = 0
    """By how much a prompt is longer than the family says."""
    finish_reason: str | None = None


class FakeEngine:
    """Ends up to four rows a step."""

    def __init__(self, world: World, arguments: SimpleNamespace) -> None:
        self.world = world
        self.family: Any = load_family(Path(arguments.model))
        self.waiting: list[tuple[str, dict[str, Any], SimpleNamespace]] = []
        self.steps = 0
        self.prepared: dict[str, int] = {}
        self.read: set[str] = set()
        world.images.append(self.prepared)
        self.renderer = SimpleNamespace(render_cmpl=self._render, shutdown=lambda: None)
        self.engine_core = SimpleNamespace(shutdown=self._stop)

    def add_request(self, name: str, prompt: dict[str, Any], parameters: SimpleNamespace) -> None:
        self.world.requests.append((name, prompt, parameters))
        self.waiting.append(self.world.requests[-1])
        self.world.most_waiting = max(self.world.most_waiting, len(self.waiting))

    def step(self) -> list[SimpleNamespace]:
        self.steps += 1
        if self.world.breaks is not None and self.steps == 3:
            raise self.world.breaks
        if self.world.dies is not None and self.steps == 3:
            raise SystemExit(self.world.dies)
        ending, self.waiting = self.waiting[-4:], self.waiting[:-4]
        return [self._end(*request) for request in ending]

    def _render(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.world.prepared += len(prompts)
        rendered = []
        for prompt in prompts:
            (name,) = prompt["multi_modal_uuids"]["image"]
            self.prepared[name] = self.prepared.get(name, 0) + 1
            images = [[prompt["multi_modal_data"]["image"]]]
            tokens = self.family.processor(text=[prompt["prompt"]], images=images)["input_ids"][0]
            rendered.append(
                {"prompt_token_ids": [*tokens, *[0] * self.world.extra_tokens], "image": name}
            )
        return rendered

    def _end(self, name: str, prompt: dict[str, Any], asked: SimpleNamespace) -> SimpleNamespace:
        seed = asked.seed if asked.temperature else 0
        draw = random.Random(f"{seed} {prompt['prompt_token_ids']}")
        allowed = sorted(
            set(range(self.family.vocabulary)) - {*self.family.banned, *self.family.eos}
        )
        count = draw.randint(1, asked.max_tokens)
        tokens = draw.choices(allowed, k=count)
        if stopped := count < asked.max_tokens:
            tokens[-1] = asked.stop_token_ids[0]
        reason = self.world.finish_reason or ("stop" if stopped else "length")
        completion = SimpleNamespace(token_ids=tokens, finish_reason=reason)
        known = prompt["image"] in self.read
        self.read.add(prompt["image"])
        length = len(prompt["prompt_token_ids"])
        return SimpleNamespace(
            request_id=name,
            outputs=[completion],
            prompt_token_ids=prompt["prompt_token_ids"],
            num_cached_tokens=length if known else 0,
        )

    def _stop(self) -> None:
        self.world.stopped += 1


class ThreadWorker:
    """A worker in a thread: ``mstar.stages.backends.vllm_pool.Worker`` without a process."""

    def __init__(self, world: World, place: dict[str, str]) -> None:
        world.places.append(place)
        self.world = world
        self.connection, self._theirs = Pipe()
        self.said: deque[str] = deque()
        self._code: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        return self._code

    def end(self, seconds: float) -> None:
        self.connection.close()
        self._thread.join(120)

    def _run(self) -> None:
        code = 0
        try:
            with suppress(BrokenPipeError, EOFError):
                serve(self._theirs, lambda: None)
        except SystemExit as end:
            code = int(str(end.code))
        self.said.extend(self.world.says)
        self._code = code
        self._theirs.close()


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Let ``import vllm`` find the fake."""

    def start(arguments: SimpleNamespace, *, enable_multiprocessing: bool) -> FakeEngine:
        arguments.apart = enable_multiprocessing
        world.started.append(arguments)
        if world.refuses is not None:
            raise world.refuses
        return FakeEngine(world, arguments)

    modules: dict[str, dict[str, Any]] = {
        "vllm": {
            "__version__": "0.0",
            "EngineArgs": SimpleNamespace,
            "SamplingParams": SimpleNamespace,
            "LLMEngine": SimpleNamespace(from_engine_args=start),
            "sampling_params": SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY=2)),
        },
        "vllm.platforms": {"current_platform": SimpleNamespace(device_type=world.device)},
        "vllm.v1": {},
        "vllm.v1.sample": {},
        "vllm.v1.sample.logits_processor": {"LogitsProcessor": type("LogitsProcessor", (), {})},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, contents in modules.items():
            module = ModuleType(name)
            vars(module).update(contents)
            patch.setitem(sys.modules, name, module)
        # The library that a CPU build needs is no matter of the fake.
        patch.setattr("mstar.stages.backends.vllm_process._check_numa", lambda: None)
        # Engines' classes stand on the real or the fake package, whichever was imported.
        patch.delitem(sys.modules, f"{backends.__name__}.vllm_bans", raising=False)
        patch.delattr(backends, "vllm_bans", raising=False)
        patch.setattr(
            "mstar.stages.backends.vllm_sampler.Pool",
            partial(Pool, start=lambda _, place: ThreadWorker(world, place)),
        )
        yield
        sys.modules.pop(f"{backends.__name__}.vllm_bans", None)
        vars(backends).pop("vllm_bans", None)
