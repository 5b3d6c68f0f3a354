"""Every random choice: a function of what it is for, never of when, where or in which order it is made."""

from hashlib import blake2b

Part = str | int


def derive_seed(*parts: Part) -> int:
    """A seed in [0, 2**63) that only ``parts`` decide, the same on every machine and in every version.

    Different parts give independent seeds: each is hashed with its type and length, so ``("ab", "c")`` is not
    ``("a", "bc")`` and ``1`` is not ``"1"``.
    """
    return _hash(parts) >> 1


def unit(*parts: Part) -> float:
    """A number in [0, 1), uniform over different ``parts``: a coin to toss, or a priority to sort by."""
    # 53 bits are what a float holds; of all 64, the highest would round up to 1.0.
    return (_hash(parts) >> 11) / (1 << 53)


def _hash(parts: tuple[Part, ...]) -> int:
    encoded = bytearray()
    for part in parts:
        if isinstance(part, str):
            # surrogatepass: an id that came from broken text still has a seed.
            tag, payload = b"s", part.encode("utf-8", "surrogatepass")
        else:
            # Hexadecimal, because decimal conversion refuses more than 4300 digits.
            tag, payload = b"i", f"{part:x}".encode()
        encoded += tag + len(payload).to_bytes(8, "big") + payload
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "big")
