"""GPUs that a plan knows: what their makers say of them.

Arithmetic is the dense bfloat16 peak with float32 sums, without sparsity. Sizes are decimal, as the makers count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mstar.errors import SpecError
from mstar.estimate.assumptions import parse_range
from mstar.mistakes import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device: bytes of memory, bfloat16 operations a second, bytes a second from its memory."""

    name: str
    memory: float
    arithmetic: float
    bandwidth: float
    source: str = "its maker's data sheet"


def _gpu(name: str, gigabytes: float, teraflops: float, terabytes: float) -> Gpu:
    return Gpu(
        name=name, memory=gigabytes * 1e9, arithmetic=teraflops * 1e12, bandwidth=terabytes * 1e12
    )


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("b200", 180, 2250, 8.0),
        _gpu("h200", 141, 989, 4.8),
        _gpu("h100", 80, 989, 3.35),
        _gpu("h100-pcie", 80, 756, 2.0),
        _gpu("h800", 80, 989, 3.35),
        _gpu("a100-80", 80, 312, 2.04),
        _gpu("a100-40", 40, 312, 1.56),
        _gpu("a800", 80, 312, 2.04),
        _gpu("l40s", 48, 362, 0.864),
        _gpu("a6000", 48, 155, 0.768),
        _gpu("l4", 24, 121, 0.30),
        _gpu("a10g", 24, 70, 0.60),
        _gpu("rtx-4090", 24, 165, 1.01),
    )
}

USUAL = "h100"
"""The one that a plan takes when nobody says which; it says so."""


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``; ``SpecError`` naming those there are."""
    found = GPUS.get(name.lower())
    if found is None:
        raise SpecError(
            f"no GPU {name!r} is known{nearest(name.lower(), list(GPUS), 'they are')}; describe another one in a file "
            "for --assume: gpu: {name: …, memory_gb: 80, teraflops: 989, terabytes_per_s: 3.35}"
        )
    return found


def parse_gpu(value: Any, where: str) -> Gpu:
    """A GPU as a person describes it: a known name, or its four figures. Raises ``SpecError``."""
    if isinstance(value, str):
        return find_gpu(value)
    wanted = {"name", "memory_gb", "teraflops", "terabytes_per_s"}
    if not isinstance(value, Mapping) or set(value) != wanted:
        raise SpecError(
            f"{where} should be a GPU's name, or a group of {', '.join(sorted(wanted))}; found {value!r}"
        )
    memory, arithmetic, bandwidth = (
        parse_range(value[key], f"{where}.{key}").high
        for key in ("memory_gb", "teraflops", "terabytes_per_s")
    )
    return Gpu(
        name=str(value["name"]),
        memory=memory * 1e9,
        arithmetic=arithmetic * 1e12,
        bandwidth=bandwidth * 1e12,
        source=where,
    )
