"""What the ranks of one training step agree on; a process alone agrees with itself.

Every function is called by all ranks, once ``Accelerator`` has joined them.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

T = TypeVar("T")


def is_first() -> bool:
    """Whether this is rank 0."""
    return bool(PartialState().is_main_process)


def is_first_here() -> bool:
    """Whether this is the first rank on its machine."""
    return bool(PartialState().is_local_main_process)


def machine() -> int:
    """A number that the ranks on one machine share: the rank of their first. Another machine has another disk."""
    state = PartialState()
    return int(state.process_index - state.local_process_index)


def everyones(value: T) -> list[T]:
    """The values of all ranks, in the order of ranks."""
    values: list[T] = gather_object([value])
    return values


def firsts(value: T) -> T:
    """Rank 0's value."""
    told: T = broadcast_object_list([value])[0]
    return told


def highest(value: int) -> int:
    """The highest of all ranks' values."""
    return each_highest(value)[0]


def each_highest(*values: int) -> list[int]:
    """The highest of all ranks' first values, second values and so on, told in one message."""
    state = PartialState()
    if state.num_processes == 1:
        return list(values)
    tensor = torch.tensor(values, device=state.device)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    found: list[int] = tensor.tolist()
    return found
