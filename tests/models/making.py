"""What the tests of families are made of: prompts of unequal images, loaded models."""

from types import SimpleNamespace

import torch

from mstar.models.family import load_family
from mstar.stages.protocols import Prompted
from tests.models.tiny_families import TILE, draw_image

CPU = torch.device("cpu")
SIZES = [(16, 16), (56, 20), (20, 70), (33, 97), (300, 200)]


def ask(text="Two?", seed=0, size=(TILE, TILE)):
    return SimpleNamespace(query_id=f"q{seed}", text=text, image=draw_image(seed, size))


def prompted(seed, size, *, seeds=(0,)):
    text = "What is the sum?" + " Look." * seed
    return Prompted(query_id=f"q{seed}", text=text, image=draw_image(seed, size), seeds=seeds)


def open_family(path, **options):
    """A folder's family, asked for more than the protocol has."""
    return load_family(path, **options)


def load(path):
    family = load_family(path)
    return family, family.load(dtype=torch.float32, device=CPU)


def unequal(family):
    """Prompts of unequal images and texts, and answers of unequal lengths."""
    prompts = family.encode([ask("Two" + "?" * n, n, size) for n, size in enumerate(SIZES[:3])])
    return prompts, [family.tokenize(text) for text in ("12", "The answer is 12.", "")]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
