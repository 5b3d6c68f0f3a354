"""The demo's two runs: the recipe as it stands, and the same without PRM and exploration."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from mstar.config import RunSpec, parse_spec

CONTINUOUS = "continuous"
MSTAR = "mstar"
MATCHED = 2400
"""Most examples an iteration of ``continuous``: what M-STaR's Top-2 of 1,200 queries can give.

So the two runs differ in what they learn from, and not in how much."""


def base_folder() -> Path:
    """The tiny base model that ships with the project."""
    return Path(str(files("mstar.demo"))) / "base"


def read_recipe() -> dict[str, Any]:
    """The recipe as parsed YAML."""
    text = (files("mstar.demo") / "recipe.yaml").read_text(encoding="utf-8")
    recipe: dict[str, Any] = yaml.safe_load(text)
    return recipe


def demo_specs(*, seed: int, store: str, data: Path, base: Path) -> dict[str, RunSpec]:
    """Specs by name. ``continuous`` draws on all right responses, at temperature 1 (paper, section 3.2)."""
    common = {"seed": seed, "store": store, "data": {"path": str(data)}, "model": str(base)}
    mstar = read_recipe() | common | {"name": MSTAR}
    everything = {"rule": "all", "limit": MATCHED}
    evolve = mstar["evolve"] | {"select": everything, "exploration": None}
    continuous = mstar | {"name": CONTINUOUS, "evolve": evolve}
    return {
        CONTINUOUS: parse_spec(continuous, source="the demo's recipe"),
        MSTAR: parse_spec(mstar, source="the demo's recipe"),
    }
