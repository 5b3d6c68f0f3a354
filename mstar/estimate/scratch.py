"""What pods must be able to write to their scratch space, against what the spec gives them."""

import re
from collections.abc import Iterable, Mapping

from mstar.cluster import STAGES, Cluster, Stage
from mstar.estimate.bill import state_bytes
from mstar.estimate.layout import Layout, setup_of
from mstar.estimate.models import ModelFacts
from mstar.estimate.work import Work

GIGA = 1e9
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3}
_UNITS |= {letter: 1000.0 ** (place + 2) for place, letter in enumerate("MGTPE")}
_UNITS |= {f"{letter}i": 1024.0 ** (place + 1) for place, letter in enumerate("KMGTPE")}


def quantity_bytes(quantity: str) -> float:
    """Bytes that a Kubernetes quantity (``20Gi``) means."""
    number, unit = re.fullmatch(r"([\d.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)", quantity).groups()  # type: ignore[union-attr]  # a quantity was matched before
    return float(number) * _UNITS[unit]


def scratch_bytes(work: Work, place: Layout, models: Mapping[str, ModelFacts]) -> float:
    """What a pod of this step has on its scratch space at once, at most.

    A model that is only read is fetched once. Training fetches the checkpoint that it goes on from, and writes another.
    """
    model = models[work.model]
    if work.optimization is None:
        prm = models[work.prm].file_bytes if work.prm else 0.0
        return (model.file_bytes if work.prompts.high else 0.0) + prm
    setup = setup_of(place.execution, work.optimization, place.parallel)
    return 2 * (model.file_bytes + state_bytes(model, setup, work.optimization))


def scratch_warnings(
    works: Iterable[Work],
    places: Mapping[Stage, Layout],
    models: Mapping[str, ModelFacts],
    cluster: Cluster,
) -> list[str]:
    """A sentence for each stage whose pods would be evicted for what they write."""
    needed = dict.fromkeys(STAGES, 0.0)
    for work in works:
        if not work.adopted:
            most = scratch_bytes(work, places[work.stage], models)
            needed[work.stage] = max(needed[work.stage], most)
    return [
        _sentence(stage, needed[stage], cluster.pod(stage).scratch)
        for stage in STAGES
        if needed[stage] > quantity_bytes(cluster.pod(stage).scratch)
    ]


def _sentence(stage: Stage, needed: float, given: str) -> str:
    enough = 1.2 * needed / 2**30
    return (
        f"pods of {stage} write up to {needed / GIGA:.0f} GB to their scratch, and cluster.stages.{stage}.scratch "
        f"is {given}: Kubernetes would evict them. Set it to {enough:.0f}Gi or more."
    )
