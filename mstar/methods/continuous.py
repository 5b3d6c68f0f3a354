"""Continuous self-evolving: one optimizer and one schedule live through all iterations (the paper's own)."""

from mstar.methods import Method


def optimizer(iteration: int) -> int | None:
    """The last iteration's; the first has none to inherit, since the warm-up was another training."""
    return iteration - 1 if iteration > 1 else None


METHOD = Method(title="continuous", weights=lambda iteration: iteration - 1, optimizer=optimizer)
