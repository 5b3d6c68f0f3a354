"""A real S3 server (VersityGW) on this machine, started and ended by process id, where its program is to be found."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import Port

START_SECONDS = 120.0
ACCESS, SECRET = "mstar-test-key", "mstar-test-s3cr3t-that-nobody-may-see"
ABSENT = (
    "VersityGW is not on this machine: set MSTAR_VERSITYGW to its program, put it on PATH, or run `make cluster`, "
    "which builds it"
)


def program() -> Path | None:
    """VersityGW's program: MSTAR_VERSITYGW, the PATH, or the cache of built tools; None when it is nowhere."""
    if named := os.environ.get("MSTAR_VERSITYGW"):
        return Path(named) if os.access(named, os.X_OK) else None
    if found := shutil.which("versitygw"):
        return Path(found)
    cache = Path(os.environ.get("MSTAR_CACHE_DIR") or Path(tempfile.gettempdir(), "mstar-cache"))
    built = [path for path in cache.glob("tools-*/versitygw") if os.access(path, os.X_OK)]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


class VersityGW:
    """The server over a folder, at one address for as long as the object lives; it may be stopped and started."""

    def __init__(self, found: Path, folder: Path) -> None:
        self._program, self._folder = found, folder
        self._held = Port()
        self._port = self._held.number
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._held.close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._process is None
        command = [str(self._program), "--port", f"127.0.0.1:{self._port}", "--quiet"]
        command += ["--keep-alive", "posix", str(self._folder / "data")]
        secrets = {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | secrets,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError as error:
                if self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                told = (self._folder / "log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(
                    f"VersityGW did not start within {START_SECONDS} s: {told}"
                ) from error
            return

    def stop(self, *, kill: bool = False) -> None:
        """End it, at once with ``kill``; its data stays."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def freeze(self, *, frozen: bool) -> None:
        """Have it accept connections and answer nothing, or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)
        if frozen:  # until it is so, it may still answer
            os.waitpid(self._process.pid, os.WUNTRACED)
