"""What holds in every test: no network, one thread a process, the same examples every time."""

import os
import socket
import sys
from typing import Any

# Before anything imports a numeric library or a cloud client: they read these once. Subprocesses inherit them.
os.environ |= {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
} | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
    os.environ.pop(name, None)

import pytest  # noqa: E402 - the environment above must be set first
from hypothesis import settings  # noqa: E402

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("search", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

pytest_plugins = ["tests.s3_server"]


def _is_this_machine(address: Any) -> bool:
    if not isinstance(address, tuple):  # a Unix socket's path
        return True
    host = str(address[0])
    return host in {"localhost", "::1", "0.0.0.0", "::"} or host.startswith("127.")  # noqa: S104 - only compared


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Any:
    """Connecting beyond this machine fails at once, with the address, where it would otherwise hang or pass by luck."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def checked_connect(self: socket.socket, address: Any) -> None:
        if not _is_this_machine(address):
            pytest.fail(f"a test tried to connect to {address!r}; tests may use this machine only")
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        if not _is_this_machine(address):
            pytest.fail(f"a test tried to connect to {address!r}; tests may use this machine only")
        return connect_ex(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", checked_connect)
    patch.setattr(socket.socket, "connect_ex", checked_connect_ex)
    yield
    patch.undo()


@pytest.fixture
def mstarctl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Call the console script in this process: its exit code, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from mstarctl.main import main  # where it is not asked for, it need not be there

        monkeypatch.setattr(sys, "argv", ["mstarctl", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        return (code, *capfd.readouterr())

    return call


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """All tests on a real cluster go to one worker, one after the other; any other test goes wherever there is room."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class OneForTheCluster(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "cluster" if nodeid.startswith("tests/cluster/") else nodeid

    return OneForTheCluster(config, log)
