"""Storage against bare boto3 with the same settings: ``python -m bench.storage``.

One large file and many small ones go up and down, by ``upload_file``/``download_file`` and by ours, in turns, against a
server on this machine: VersityGW if it is to be found, else moto. Ours includes the sha256 that goes into the
manifest, and its check on the way back. The server takes its share of the same cores, so hashing is not free here.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.manifest import Manifest
from mstar.storage.parallel import LARGE, PARALLEL
from mstar.storage.reading import materialise
from mstar.storage.s3 import S3Store
from mstar.storage.s3_client import connect
from mstar.storage.s3_parts import PART
from tests.ports import Port
from tests.versitygw import VersityGW, program

MIB = 1 << 20
LARGE_MIB = 256
SMALL_FILES, SMALL_BYTES = 200, 64 << 10
ROUNDS = 7
SAME = TransferConfig(multipart_threshold=LARGE, multipart_chunksize=PART, max_concurrency=PARALLEL)
BUCKET = "bench"
Ways = dict[str, Callable[[], object]]


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server with the bucket, named, and the environment that leads to it."""
    found = program()
    with real(found, folder) if found else moto() as (name, environment):
        os.environ |= environment | {"AWS_EC2_METADATA_DISABLED": "true"}
        connect().create_bucket(Bucket=BUCKET)
        yield name


@contextmanager
def real(found: Path, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with VersityGW(found, folder / "server") as running:
        yield "VersityGW", running.environment


@contextmanager
def moto() -> Iterator[tuple[str, dict[str, str]]]:
    port = Port()
    endpoint = f"http://127.0.0.1:{port.number}"
    program = "import sys; from moto.server import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(port.number)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            time.sleep(0.2)
            with socket.socket() as asking:
                if not asking.connect_ex(("127.0.0.1", port.number)):
                    break
        yield (
            "moto (no VersityGW here)",
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )
    finally:
        process.terminate()
        process.wait(10)
        port.close()


def in_turns(ways: Ways, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds, and seconds of this process's work, of each way in each round; the order turns round by round.

    One round before them does not count.
    """
    names = list(ways)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin, work = time.perf_counter(), time.process_time()
            ways[name]()
            if turn:
                times[name].append((time.perf_counter() - begin, time.process_time() - work))
    return times


def compared(times: Mapping[str, list[tuple[float, float]]], mib: float) -> dict[str, Any]:
    """MiB/s of each way at its median, and how ours compares with bare within each round."""
    pairs = zip(times["bare"], times["ours"], strict=True)
    ratios = sorted(bare / ours for (bare, _), (ours, _) in pairs)
    return {
        "MiB/s": {
            name: round(mib / statistics.median(wall for wall, _ in each))
            for name, each in times.items()
        },
        "client's CPU seconds": {
            name: round(statistics.median(work for _, work in each), 2)
            for name, each in times.items()
        },
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


class Transfers:
    """The same files, up and down: bare, ours, and what tells how they differ."""

    def __init__(self, folder: Path, store: S3Store, count: int, size: int) -> None:
        self.source, self.target = folder / "source", folder / "target"
        self.store, self.client = store, connect()
        self.source.mkdir(parents=True)
        self.names = [f"{number:05d}" for number in range(count)]
        self.attempts = 0
        for name in self.names:
            with (self.source / name).open("wb") as file:
                for _ in range(max(1, size // MIB)):
                    file.write(os.urandom(min(size, MIB)))
        self.stored = self.ours_up()

    def bare_up(self, name: str) -> None:
        self.client.upload_file(str(self.source / name), BUCKET, f"bare/{name}", Config=SAME)

    def bare_down(self, name: str) -> Path:
        target = self.target / "bare" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        self.client.download_file(BUCKET, f"bare/{name}", str(target), Config=SAME)
        return target

    def ours_up(self) -> Manifest:
        """An attempt at a step: all parts stored and hashed, and committed."""
        self.attempts += 1
        identity = hashlib.sha256(b"%d" % self.attempts).hexdigest()
        with ArtifactWriter(self.store, identity, "1") as writer:
            writer.add_folder("", self.source)
            return writer.commit().manifest

    def ours_down(self) -> None:
        """All parts in a local folder, each checked against its size and sha256."""
        shutil.rmtree(self.target / "ours", ignore_errors=True)
        materialise(self.store, self.stored, "", self.target / "ours")

    def plain_up(self, name: str) -> None:
        """Ours without the sha256."""
        self.store.upload(f"plain/{name}", self.source / name)

    def checked_down(self, name: str) -> None:
        """The bare way to a file that was checked."""
        with self.bare_down(name).open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def compare(self, rounds: int, mib: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Up, then down. Many files are also sent and fetched as many at once, which a bare loop does not."""
        up: Ways = {"bare": self.each(self.bare_up), "ours": self.ours_up}
        down: Ways = {"bare": self.each(self.bare_down), "ours": self.ours_down}
        if len(self.names) > 1:
            up |= {"bare, 8 at once": self.at_once(self.bare_up)}
            down |= {"bare, 8 at once": self.at_once(self.bare_down)}
        else:
            up |= {"ours without sha256": self.each(self.plain_up)}
            down |= {"bare, then sha256": self.each(self.checked_down)}
        yield "up", compared(in_turns(up, rounds), mib)
        yield "down", compared(in_turns(down, rounds), mib)

    def each(self, do: Callable[[str], object]) -> Callable[[], object]:
        return lambda: [do(name) for name in self.names]

    def at_once(self, do: Callable[[str], object]) -> Callable[[], object]:
        def run() -> None:
            with ThreadPoolExecutor(PARALLEL) as pool:
                list(pool.map(do, self.names))

        return run


def measure(large_mib: int, rounds: int) -> dict[str, Any]:
    """One large file and many small ones, up and down."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as name:
        found: dict[str, Any] = {"benchmark": "storage", "server": name, "wanted": 0.9}
        sizes = (("large", 1, large_mib * MIB), ("small", SMALL_FILES, SMALL_BYTES))
        for what, count, size in sizes:
            store = S3Store(f"s3://{BUCKET}/{what}")
            transfers = Transfers(Path(folder) / what, store, count, size)
            for way, result in transfers.compare(rounds, count * size / MIB):
                found[f"{what} {way}"] = result
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large-mib", type=int, default=LARGE_MIB)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(json.dumps(measure(given.large_mib, given.rounds), indent=1))
