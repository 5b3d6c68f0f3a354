"""Two stores to commit to, and a model folder to commit."""

from pathlib import Path

import pytest

from mstar.storage.folder import FolderStore
from mstar.storage.memory import MemoryStore
from mstar.storage.store import Store


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "store")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Files as a hub's client leaves them, with some that are none of the model's."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "weights.safetensors").write_bytes(bytes(range(256)) * 100)
    (folder / "tokenizer/merges.txt").write_bytes(b"a b\n")
    (folder / ".cache").mkdir()
    (folder / ".cache/lock").write_bytes(b"")
    (folder / ".gitattributes").write_bytes(b"")
    return folder
