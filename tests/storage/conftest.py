"""Two stores to commit to, and a model folder to commit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mstar.storage.folder import FolderStore
from mstar.storage.memory import MemoryStore
from mstar.storage.s3 import S3Store
from mstar.storage.store import Store
from tests.storage.meddler import Meddler


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


@pytest.fixture
def meddle(s3_store: S3Store) -> Callable[[str, Callable[..., Any]], S3Store]:
    def apply(call: str, stand_in: Callable[..., Any]) -> S3Store:
        vars(s3_store)["_client"] = Meddler(s3_store._client, call, stand_in)
        return s3_store

    return apply
