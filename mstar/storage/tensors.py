"""What a model folder's files say of it, in milliseconds and without torch: JSON, and the headers of safetensors."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mstar.errors import ModelError

HEADER_BYTES = 100_000_000
"""What a header has at most, by the format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Every tensor's shape by name, and the bytes that the whole file has when nothing of it is missing."""

    shapes: dict[str, tuple[int, ...]]
    bytes: int


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in one file; ``ModelError`` when it holds none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{file} is not a JSON object")
    return found


def read_header(file: Path) -> Header:
    """The header of one file: eight bytes of length, and so many of JSON. ``ModelError`` when it is no such file."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            entries = json.loads(stream.read(min(length, HEADER_BYTES)))
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for entry in tensors.values()]
        return Header(
            shapes={
                name: tuple(int(size) for size in entry["shape"]) for name, entry in tensors.items()
            },
            bytes=8 + length + max(ends, default=0),
        )
    except (struct.error, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        raise ModelError(
            f"{file} is not a safetensors file ({error}); copy the model's folder again"
        ) from None
