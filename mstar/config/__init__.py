"""What a person writes: the typed run spec. Defaults are the paper's; ``docs/spec.md`` lists every key.

In reading order:

- `phases`: data, prompts, warm-up, PRM, evaluation, limits
- `evolving`: the axes of self-evolving, each its own key
- `spec`: the whole, and what contradicts across keys
- `reading`: files, ``extends``, overrides, and one ``SpecError`` that names every mistake
"""

from mstar.config.evolving import Evolve, Exploration, Unlabeled
from mstar.config.phases import (
    Benchmarks,
    Data,
    Evaluation,
    Limits,
    Prm,
    Prompts,
    Rollout,
    WarmUp,
)
from mstar.config.reading import (
    apply_override,
    expanded,
    load_spec,
    parse_spec,
    read_yaml,
    spec_differences,
)
from mstar.config.spec import HOW, NAME, Paper, RunSpec

__all__ = [
    "HOW",
    "NAME",
    "Benchmarks",
    "Data",
    "Evaluation",
    "Evolve",
    "Exploration",
    "Limits",
    "Paper",
    "Prm",
    "Prompts",
    "Rollout",
    "RunSpec",
    "Unlabeled",
    "WarmUp",
    "apply_override",
    "expanded",
    "load_spec",
    "parse_spec",
    "read_yaml",
    "spec_differences",
]
