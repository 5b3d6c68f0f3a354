"""The demo's two runs: the recipe as it stands, and the same without PRM and exploration."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from mstar.config import RunSpec, parse_spec

CONTINUOUS = "continuous"
MSTAR = "mstar"
PER_QUERY = 2
"""Responses a query that M-STaR trains on; the other run may take twice so many queries' worth, at random."""


def base_folder() -> Path:
    """The tiny base model that ships with the project."""
    return Path(str(files("mstar.demo"))) / "base"


def read_recipe() -> dict[str, Any]:
    """The recipe as parsed YAML."""
    text = (files("mstar.demo") / "recipe.yaml").read_text(encoding="utf-8")
    recipe: dict[str, Any] = yaml.safe_load(text)
    return recipe


def demo_specs(*, seed: int, store: str, data: Path, base: Path) -> dict[str, RunSpec]:
    """Specs by name. ``continuous`` trains on all right responses at temperature 1 (paper, section 3.2)."""
    common = {"seed": seed, "store": store, "data": {"path": str(data)}, "model": str(base)}
    mstar = read_recipe() | common | {"name": MSTAR}
    everything = {"rule": "all"}
    evolve = mstar["evolve"] | {"select": everything, "exploration": None}
    continuous = mstar | {"name": CONTINUOUS, "evolve": evolve}
    return {
        CONTINUOUS: parse_spec(continuous, source="the demo's recipe"),
        MSTAR: parse_spec(mstar, source="the demo's recipe"),
    }
