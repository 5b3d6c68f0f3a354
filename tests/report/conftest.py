from pathlib import Path
from typing import Any

import pytest

from tests.report.making import make_run, make_spec, make_store, plain_spec


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with two finished runs, the second of which adopted what they share."""
    folder: Path = tmp_path_factory.mktemp("both")
    store = make_store(folder)
    make_run(store, folder, make_spec())
    make_run(store, folder, plain_spec())
    return store
