"""Iterative RFT: the last iteration's weights, a fresh optimizer and schedule each time."""

from mstar.methods import Method

METHOD = Method(
    title="iterative RFT", weights=lambda iteration: iteration - 1, optimizer=lambda _: None
)
