"""An analysis with a real policy and a real PRM, in a worker process."""

import shutil

import pytest

from mstar.config import parse_spec
from mstar.demo.dataset import write_dataset
from mstar.demo.relevance import generator
from mstar.demo.specs import base_folder, read_recipe
from mstar.executors.local import LocalExecutor
from mstar.history import Entry, Run, append_entry, run_bytes
from mstar.recipe import Inputs
from mstar.storage import keys
from mstar.storage.artifacts import ArtifactWriter, commit_dataset, commit_model
from mstar.storage.folder import FolderStore
from mstar.storage.manifest import Ref
from tests.analysis.making import analysed


@pytest.fixture
def small_world(tmp_path):
    """A run whose policy is the demo's base model, and whose PRM is the same with a fresh head."""
    import torch

    from mstar.models.family import load_family
    from mstar.models.prm import load_reward_model, save_head

    store = FolderStore(tmp_path / "store")
    paths = write_dataset(tmp_path / "data", sizes={"train": 8, "validation": 6, "test": 4})
    data = commit_dataset(store, {f"{name}.parquet": path for name, path in paths.items()})
    model = commit_model(store, base_folder())
    folder = tmp_path / "prm"
    shutil.copytree(base_folder(), folder)
    family = load_family(folder)
    head = load_reward_model(
        family, dtype=torch.float32, device=torch.device("cpu"), fresh_head=True
    ).head
    save_head(head.state_dict(), folder)
    with ArtifactWriter(store, "0" * 64, "1") as writer:
        writer.add_folder("model/", folder)
        prm = writer.commit(results={}).manifest
    raw = read_recipe() | {"name": "small", "warm_up": None, "store": store.url}
    inputs = Inputs(
        data=Ref.of(data),
        queries={"train": 8, "validation": 6, "test": 4},
        model=Ref.of(model),
    )
    store.create(keys.spec("small"), run_bytes(Run(spec=parse_spec(raw), inputs=inputs)))
    append_entry(
        store,
        "small",
        Entry(
            index=0,
            name="prm/train",
            ref=Ref.of(prm),
            adopted=False,
            seconds=1.0,
            finished_at=0.0,
        ),
    )
    return store


@pytest.mark.slow
def test_real_models_sample_and_score_in_a_worker_of_their_own(small_world):
    result = analysed(small_world, "small", LocalExecutor, samples=8, generator=generator)
    assert result.verification.sizes == (1, 2, 4, 8)
    assert result.verification.greedy is not None
    assert result.verification.greedy.n == 6
    assert result.queries == 6
    again = analysed(small_world, "small", _nobody, samples=8, generator=generator)
    assert again.adopted
    assert again.verification == result.verification
    contrasts = result.sampled.contrasts
    assert not contrasts or {"relevant_steps", "operations_shown", "sound"} <= contrasts.keys()
    assert not any("generator" in missing.what for missing in result.missing)


def _nobody():
    raise AssertionError("the store has the samples: nothing is to be run")
