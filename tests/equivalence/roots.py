"""The worker's own loop around a comparison that knows a few roots, and has too little memory for one of them."""

from mstar.equivalence import worker

SAME = {r"2\sqrt{3}", r"\sqrt{12}"}


def same(one: str, other: str, tolerance: float, decimals: int | None) -> bool:
    if r"\sqrt{999}" in {one, other}:
        raise MemoryError
    return {one, other} <= SAME


if __name__ == "__main__":
    worker.load = lambda: same
    worker.main()
