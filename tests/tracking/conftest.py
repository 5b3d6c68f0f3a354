import pytest

from tests.report.making import make_run, make_spec, make_store


@pytest.fixture
def store(tmp_path):
    """A store with a finished run called mstar."""
    found = make_store(tmp_path)
    make_run(found, tmp_path, make_spec())
    return found
