"""A stored run, and the command on it with a stage that samples by a formula."""

import pytest
from mstarctl.main import app
from typer.testing import CliRunner

from mstar.executors.fake import FakeExecutor
from tests.analysis.making import group, sampling
from tests.report.making import make_run, make_spec, make_store, plain_spec


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(
        "tests.report.making.answers", lambda query, count, *_, **__: group(query, 2 * count)
    )


@pytest.fixture
def store(tmp_path):
    """A finished run with a PRM, and one without."""
    found = make_store(tmp_path)
    make_run(found, tmp_path, make_spec())
    make_run(found, tmp_path, plain_spec())
    return found


@pytest.fixture
def executor(store, tmp_path, monkeypatch):
    """In the place of worker processes."""
    fake = FakeExecutor(sampling(store, tmp_path))
    monkeypatch.setattr("mstar.executors.local.LocalExecutor", lambda: fake)
    return fake


@pytest.fixture
def call(store, executor, tmp_path):
    """``mstarctl analyse prm`` on the store, with 8 samples, into a folder ``out``."""

    def run(name="mstar", *options):
        out = ["--store", store.url, "--out", str(tmp_path / "out"), "--samples", "8"]
        return CliRunner().invoke(app, ["analyse", "prm", name, *out, *map(str, options)])

    return run
