"""SFT: one pass over the true answers from the base, without reasoning. The paper's baseline."""

from mstar.methods import Method

METHOD = Method(
    title="SFT on the true answers, no reasoning",
    weights=lambda _: 0,
    optimizer=lambda _: None,
    learns_from="answers",
)
