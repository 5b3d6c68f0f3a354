"""The losses of a pass as they come, and the end of training at the first step that is not finite.

Reading a number from a GPU waits for everything that the GPU has been given. So each step's numbers are copied to the
host beside the computation, and looked at when the next step has been given to the GPU: training stops one step late
and never waits. On a CPU they are looked at at once. All ranks have the same numbers and look at the same moment.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mstar.errors import ModelError

log = logging.getLogger(__name__)

NAMED = 16
"""So many examples of a batch are named in the message; the log has all of them."""


class Diverged(Exception):
    """The loss, or the gradient's norm, of an optimizer step of the pass is not finite; ``stopped`` tells a person."""

    def __init__(self, step: int, loss: float, norm: float, batch: Sequence[str]) -> None:
        super().__init__(step, loss, norm)
        self.step, self.loss, self.norm, self.batch = step, loss, norm, batch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What is known of a step: two numbers, on the host once ``copied`` has happened (None: now)."""

    numbers: torch.Tensor
    copied: torch.cuda.Event | None
    batch: tuple[str, ...]


class Losses:
    """The mean loss of each optimizer step of a pass, of which ``earlier`` were made by earlier attempts."""

    def __init__(self, earlier: Sequence[float]) -> None:
        self._values = list(earlier)
        self._waiting: list[_Step] = []

    def __len__(self) -> int:
        return len(self._values) + len(self._waiting)

    def add(
        self, loss: torch.Tensor, norm: torch.Tensor | float | None, batch: Sequence[str]
    ) -> None:
        """Note the step after the last; ``Diverged`` if that one (on a CPU: this one) is not finite.

        ``norm`` is of the gradient before clipping: with one that is not finite the weights are lost, though the loss
        is still a number. None where nobody knows it.
        """
        known = torch.as_tensor(0.0 if norm is None else norm, device=loss.device)
        numbers = torch.stack([loss.detach().float(), known.detach().float().reshape(())])
        if loss.device.type == "cuda":
            host = torch.empty(2, pin_memory=True)
            host.copy_(numbers, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
            self._waiting.append(_Step(numbers=host, copied=copied, batch=tuple(batch)))
            self._look(leave=1)
        else:
            self._waiting.append(_Step(numbers=numbers, copied=None, batch=tuple(batch)))
            self._look(leave=0)

    @property
    def known(self) -> tuple[float, ...]:
        """The losses that have arrived: nothing is waited for."""
        return tuple(self._values)

    def all(self) -> tuple[float, ...]:
        """Every loss so far, waited for; ``Diverged`` if one is not finite."""
        self._look(leave=0)
        return tuple(self._values)

    def _look(self, *, leave: int) -> None:
        while len(self._waiting) > leave:
            step = self._waiting[0]
            if step.copied:
                step.copied.synchronize()
            loss, norm = step.numbers.tolist()
            # DeepSpeed says -1 where it found no finite norm.
            if not math.isfinite(loss) or not math.isfinite(norm) or norm < 0:
                raise Diverged(len(self._values) + 1, loss, norm, step.batch)
            self._values.append(loss)
            del self._waiting[0]


def stopped(error: Diverged, kept: int) -> ModelError:
    """What a person is told; ``kept`` is the optimizer step after which the last good checkpoint was left, or 0."""
    named = ", ".join(error.batch[:NAMED])
    more = len(error.batch) - NAMED
    log.error("optimizer step %d was of %s", error.step, ", ".join(error.batch))
    if not math.isfinite(error.loss):
        what = f"the loss of optimizer step {error.step} is {error.loss}"
    else:
        what = f"the gradient of optimizer step {error.step} is not finite (its loss is {error.loss:.6g})"
    begins = (
        f"after optimizer step {kept}, the last good checkpoint," if kept else "at the beginning"
    )
    return ModelError(
        f"{what}; training was stopped and nothing was saved of this or a later step. Its batch (query/sample): "
        f"{named}{f', and {more} more in the log' if more > 0 else ''}. Lower the learning rate or clip, train in "
        "float32, or look at these examples; a task that is changed so begins anew. Resumed as it is, the step goes on "
        f"{begins} and stops here again, unless the machine was at fault."
    )
