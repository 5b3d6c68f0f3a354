"""What training costs: tokens a second and peak memory, in the log as it goes and in the step's usage at its end."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mstar.stages.backends.ranks import each_highest, is_first

log = logging.getLogger(__name__)

SECONDS = 30.0
"""The log says how training goes at most this often; saying so waits for the device."""

GIB = 1 << 30
STATUS = Path("/proc/self/status")


class Meter:
    """Counts from when it is made; ``steps`` optimizer steps are to come. Time spent ``paused`` does not count."""

    def __init__(
        self,
        device: torch.device,
        steps: int,
        *,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device, self._steps = device, steps
        self._seconds, self._clock = seconds, clock
        _forget_peaks(device)
        self._began = self._said = clock()
        self._tokens = self._done = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside, such as the storing of a checkpoint."""
        start = self._clock()
        yield
        self._began += self._clock() - start

    def step(self, loss: torch.Tensor, tokens: int) -> None:
        """Count an optimizer step over ``tokens`` on all ranks: prompts, images and responses, without padding."""
        self._tokens += tokens
        self._done += 1
        now = self._clock()
        if is_first() and now - self._said >= self._seconds:
            self._said = now
            log.info(
                "optimizer step %d of %d: loss %.4g, %.0f tokens/s, peak memory %.2f GiB",
                self._done,
                self._steps,
                float(loss),
                self._tokens / (self._clock() - self._began),
                peak_device_bytes(self._device) / GIB,
            )

    def usage(self) -> dict[str, float]:
        """The whole step's speed, and the most memory that a rank took on its device and of its host.

        Called by all ranks; empty when no step was counted.
        """
        taken = self._clock() - self._began
        device, host = each_highest(peak_device_bytes(self._device), peak_host_bytes())
        if not self._done:
            return {}
        usage = {
            "tokens_per_second": round(self._tokens / taken, 1),
            "peak_memory_bytes": float(device),
            "peak_host_memory_bytes": float(host),
        }
        if is_first():
            log.info(
                "%d optimizer steps in %.1f s: %.0f tokens/s; the most of a rank: %.2f GiB (%s), %.2f GiB of its host",
                self._done,
                taken,
                usage["tokens_per_second"],
                device / GIB,
                self._device.type,
                host / GIB,
            )
        return usage


def peak_device_bytes(device: torch.device) -> int:
    """The most memory this process has had on its device; on a CPU that is the host's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return peak_host_bytes()


def peak_host_bytes() -> int:
    """The most host memory this process has had resident, pages of files that it had mapped included."""
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    for line in lines:
        # Linux; its getrusage tells of the process that this one was started from, too.
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _forget_peaks(device: torch.device) -> None:
    """A worker process takes step after step: the peak is to be this one's, where the system can forget the last."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a container may forbid it
            Path("/proc/self/clear_refs").write_text("5")
