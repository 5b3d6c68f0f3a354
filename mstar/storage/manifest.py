"""What a committed artifact consists of: the record whose existence means complete.

An artifact is a step's output, a data set or a model. Its ``digest`` covers what was computed (parts and results)
and nothing of how (attempt, timings, usage, versions), so the same arithmetic gives the same digest on every machine.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from mstar.record import Record

ArtifactKind = Literal["step", "dataset", "model"]


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value: sorted keys, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256(data: bytes) -> str:
    """Hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of an artifact: its name inside the artifact, where it is stored, and what it must contain.

    ``rows`` is the number of records for table parts, None for other files.
    """

    name: str
    key: str
    size: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A committed artifact. ``id`` is the task's hash for a step, the content's hash otherwise.

    ``results`` holds what was computed (JSON values); ``timings`` (seconds by phase), ``usage`` (speeds, peak
    memory), ``versions`` and ``attempt`` say how. ``inputs`` are the digests of the artifacts it was made from.
    """

    kind: ArtifactKind
    id: str
    parts: tuple[Part, ...]
    results: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    attempt: int = 1
    usage: dict[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hash of what was computed; equal for equal arithmetic whatever machine or attempt it came from."""
        parts = [
            [p.name, p.size, p.sha256, p.rows] for p in sorted(self.parts, key=lambda p: p.name)
        ]
        return sha256(
            canonical_json([self.kind, self.id, parts, self.results, sorted(self.inputs)])
        )

    def part(self, name: str) -> Part:
        """The part called ``name``; KeyError when there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def to_bytes(self) -> bytes:
        """The manifest as stored: readable JSON that carries its own digest."""
        body = asdict(self) | {"digest": self.digest}
        if not self.usage:
            del body["usage"]
        return (
            json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        ).encode()


class Ref(Record):
    """An input: which artifact, and the digest its manifest must have."""

    kind: ArtifactKind
    id: str
    digest: str

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        return cls(kind=manifest.kind, id=manifest.id, digest=manifest.digest)
